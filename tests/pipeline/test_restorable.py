"""DVC restores a deleted stage from its cache only if what is uncached is a metric or a plot."""

import pytest
from declared import STAGES

# Small files that are committed as they are: these stages run again where one is deleted.
COMMITTED = ("train_network", "reference_statistics", "render_report")


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - set(COMMITTED)))
def test_no_plain_output_is_uncached(stage: str):
    outputs = STAGES[stage].get("outs", [])
    assert [out for out in outputs if isinstance(out, dict)] == []
