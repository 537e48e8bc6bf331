from pathlib import Path

import pytest
from soak import soak


@pytest.mark.slow
def test_a_pipeline_that_is_killed_ends_with_the_same_results(tmp_path: Path) -> None:
    assert soak(tmp_path, kills=5, seed=1)
