from pathlib import Path

import pytest
from soak import disturbed, undisturbed


@pytest.mark.slow
def test_a_pipeline_that_is_killed_ends_with_the_same_results(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    expected = undisturbed(tmp_path / "a")
    soak, found = disturbed(tmp_path / "b", kills=5, seed=1)
    assert soak.kills.total() == 5
    assert found == expected
