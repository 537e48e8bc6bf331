from pathlib import Path
from typing import Any

import pytest
from synthetic import grid, write_tree

from study import paths
from study.config.claims import load_claims
from study.report.render import render


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where metrics files are, in a folder that is the project's for a test."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path / "reports" / "laptop" / "metrics"


@pytest.fixture
def two_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A grid of two seeds of which every cell ran."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write_tree(made := grid([0, 1]))
    return made


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three seeds with notes; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("page")
    claims = load_claims(paths.PARAMS / "claims.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", folder)
        write_tree(study := grid([0, 1, 2]))
        notes = folder / "reports" / "notes"
        notes.mkdir()
        (notes / "laptop.md").write_text("Written by *hand*.\n")
        render(study, claims)
    return folder / "reports" / "laptop"
