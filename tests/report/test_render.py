import shutil
from pathlib import Path
from typing import Any

import pytest
from synthetic import grid, write_tree

from study import command, paths, tracking
from study.config import Cell, ConfigError
from study.config.stages import RenderReport
from study.report.figures import arm_look
from study.report.names import ARMS
from study.report.render import render
from study.stages import render_report
from study.tracking import Run

OUTPUTS = {
    "report.md",
    "results.csv",
    "summary.csv",
    "costs.csv",
    *(f"tables/{name}.{kind}" for name in ("autoencoders", "generators", "costs")
      for kind in ("md", "csv", "tex")),
    *(f"figures/{name}.{kind}" for name in ("convergence", "training")
      for kind in ("png", "pdf", "csv")),
    "figures/samples.png",
    "figures/reconstructions.png",
}  # fmt: skip


def outputs(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {name: text for name, text in named.items() if not name.startswith("metrics/")}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """One seed, rendered, with one cell missing; tests leave it as it is."""
    study, folder = grid([0]), tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", folder)
        write_tree(study)
        paths.metrics("laptop", "evaluate_generator", _missing(study)).unlink()
        render(study)
    return study, folder


def _missing(study: dict[str, Any]) -> str:
    return next(name for name in study["evaluate_generator"] if "plain-0-dit" in name)


def test_outputs_are_those_of_the_pipeline(rendered: tuple[dict[str, Any], Path]):
    assert set(outputs(rendered[1] / "reports" / "laptop")) == OUTPUTS


def test_rendering_again_gives_the_same_bytes(
    rendered: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    study, folder = rendered
    first = outputs(folder / "reports" / "laptop")
    source, target = (f / "reports" / "laptop" / "metrics" for f in (folder, tmp_path))
    shutil.copytree(source, target)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    render(study)
    second = outputs(target.parent)
    assert [name for name in OUTPUTS if first[name] != second[name]] == []


def test_the_first_lines_say_what_the_profile_is(rendered: tuple[dict[str, Any], Path]):
    study, folder = rendered
    text = (folder / "reports" / "laptop" / "report.md").read_text()
    head = "\n".join(text.splitlines()[:10])
    assert "It is no evidence about EQ-VAE" in head
    assert "SiT" in head
    assert "DiT not run" in head
    assert "Seed 0 only" in head
    assert "1 of 32 cells not run" in head
    assert f"- `evaluate_generator@{_missing(study)}`" in text


def test_links_of_the_report_exist(rendered: tuple[dict[str, Any], Path]):
    folder = rendered[1] / "reports" / "laptop"
    links = [part.split(")")[0] for part in (folder / "report.md").read_text().split("](")[1:]]
    assert len(links) == 9
    assert all((folder / link).is_file() for link in links)


def test_a_report_of_nothing_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    render({**grid([0, 1, 2]), "profile": "smoke"})
    folder = tmp_path / "reports" / "smoke"
    assert set(outputs(folder)) == OUTPUTS
    assert "88 of 88 cells not run" in (folder / "report.md").read_text()


def test_arms_differ_in_colour_marker_or_dashes():
    looks = [str(arm_look(arm)) for arm in ARMS]
    assert len(set(looks)) == len(looks)


def test_the_stage_leaves_metrics_alone_and_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shown, reported = [], []
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "GRID", tmp_path / "study.yaml")
    paths.GRID.write_text("profile: laptop\n")
    monkeypatch.setattr(render_report, "render", reported.append)
    monkeypatch.setattr(tracking, "sync", shown.append)
    monkeypatch.setattr(command, "load", lambda schema, cell: schema(cell=cell))
    monkeypatch.setattr(command, "die_with_parent", lambda: None)
    monkeypatch.setattr("sys.argv", ["render_report", "profile=laptop"])
    command.stage(render_report.main, render_report.__file__, record=False)
    assert reported == [{"profile": "laptop"}]
    assert shown == ["laptop"]
    assert not list(tmp_path.rglob("*.json"))


def test_the_stage_refuses_another_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "GRID", tmp_path / "study.yaml")
    paths.GRID.write_text("profile: smoke\n")
    cell = Cell(profile="laptop")
    with pytest.raises(ConfigError, match="profile = 'smoke': must be 'laptop'"):
        render_report.main(RenderReport(cell=cell), Run("render_report", cell, {}))
