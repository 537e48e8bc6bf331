import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from study import paths
from study.config import Cell
from study.fingerprint import _content, fingerprint

PIPELINE = {
    "stages": {"train_network": {"do": {"deps": ["outputs/${item.profile}/${key}", "code"]}}}
}
CELL = Cell(profile="p", data="d", role="r")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline of one stage with an input and two files of code."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "GRID", tmp_path / "study.yaml")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    grid = {"profile": "p", "train_network": {CELL.instance: {"profile": "p"}}}
    paths.GRID.write_text(yaml.safe_dump(grid))
    for name in (f"outputs/p/{CELL.instance}/data.bin", "code/a.py", "code/b.py"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


def digest(parameters: object = None) -> str | None:
    return fingerprint("train_network", CELL, parameters)


def test_the_same_makes_the_same(root: Path) -> None:
    first = digest({"steps": 3})
    assert first is not None
    assert len(first) == 32
    (root / "code" / "__pycache__").mkdir()
    (root / "code" / "__pycache__" / "a.pyc").write_text("compiled")
    (root / "elsewhere.py").write_text("not a dependency")
    assert digest({"steps": 3}) == first


def change_input(root: Path) -> None:
    (root / "outputs" / "p" / CELL.instance / "data.bin").write_text("other")


def change_code(root: Path) -> None:
    (root / "code" / "b.py").write_text("other")


def rename_code(root: Path) -> None:
    (root / "code" / "b.py").rename(root / "code" / "c.py")


def add_code(root: Path) -> None:
    (root / "code" / "c.py").write_text("")


@pytest.mark.parametrize("change", [change_input, change_code, rename_code, add_code])
def test_a_changed_dependency_makes_another(root: Path, change: Callable[[Path], None]) -> None:
    before = digest()
    change(root)
    assert digest() != before


def test_a_changed_parameter_makes_another(root: Path) -> None:
    assert digest({"steps": 3}) != digest({"steps": 4})


def test_another_library_makes_another(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = digest()
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert digest() != before


def test_nothing_is_said_without_the_input_or_outside_the_grid(root: Path) -> None:
    assert fingerprint("train_network", Cell(profile="p", data="other"), None) is None
    shutil.rmtree(root / "outputs")
    assert digest() is None


def test_a_large_file_is_read_in_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.fingerprint._WHOLE_BYTES", 10)
    monkeypatch.setattr("study.fingerprint._BLOCK", 16)
    file = tmp_path / "large"
    file.write_bytes(bytes(5000))
    before = _content(file)
    for change in (b"x" + bytes(4999), bytes(4999) + b"x", bytes(5001)):
        file.write_bytes(change)
        assert _content(file) != before
