"""The notebooks run from top to bottom on the results of profile smoke, and say something."""

import time

import nbformat
import pytest
from clones import ROOT, Clone

NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("*.py"))]
LIMIT_S = 180.0


@pytest.fixture(scope="module")
def executed(smoke: Clone) -> dict[str, nbformat.NotebookNode]:
    """Notebooks by name, with their outputs; they leave nothing in the clone."""
    folder = smoke.root.parent / "executed"
    folder.mkdir()
    before = dict(smoke.environment)
    smoke.environment["PYTHONPATH"] += f":{smoke.root}"
    start = time.monotonic()
    for name in NAMES:
        target = str(folder / f"{name}.ipynb")
        source = f"notebooks/{name}.py"
        smoke.run(
            *("python", "-m", "jupytext", "--to", "ipynb", "--execute", "--output"), target, source
        )
    seconds = time.monotonic() - start
    smoke.environment.clear()
    smoke.environment.update(before)
    print(f"\nnotebooks: {seconds:.0f} s")
    assert seconds < LIMIT_S
    return {name: nbformat.read(folder / f"{name}.ipynb", as_version=4) for name in NAMES}


def test_there_are_four():
    assert NAMES == ["01_latents", "02_convergence", "03_claims", "04_your_autoencoder"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_figures_and_no_error(
    name: str, executed: dict[str, nbformat.NotebookNode]
):
    outputs = [out for cell in executed[name].cells for out in cell.get("outputs", [])]
    kinds = [kind for out in outputs for kind in out.get("data", {})]
    assert kinds.count("image/png") >= 2
    assert [out for out in outputs if out.output_type == "error"] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_holds_no_logic(name: str):
    text = (ROOT / "notebooks" / f"{name}.py").read_text()
    assert "from study.report" in text
    assert "def " not in text
    assert "plt." not in text
