import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from synthetic import grid, write_tree

from study import command, paths, tracking
from study.config import Cell, ConfigError
from study.config.claims import load_claims
from study.config.stages import RenderReport
from study.report.render import render
from study.report.spectra import spectra
from study.stages import render_report
from study.tracking import Run

CLAIMS = load_claims(paths.PARAMS / "claims.yaml")
OUTPUTS = {
    "report.html",
    "report.md",
    "results.csv",
    "summary.csv",
    "costs.csv",
    *(f"tables/{name}.{kind}"
      for name in ("verdicts", "claims", "endpoints", "autoencoders", "equivariance", "transformed",
                   "fine_tuning", "generators", "gains", "sample_quality", "scalings", "schedules",
                   "speed_up", "costs")
      for kind in ("md", "csv", "tex")),
    *(f"figures/{name}.{kind}"
      for name in ("headline", "convergence", "arms", "training", "fine_tuning", "spectra",
                   "detail")
      for kind in ("png", "pdf", "csv")),
    *(f"figures/{name}.png" for name in ("samples", "reconstructions", "latents", "transforms")),
}  # fmt: skip


def outputs(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    inputs = ("metrics/", "figures/claims/")
    return {name: text for name, text in named.items() if not name.startswith(inputs)}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """One seed, rendered, with one cell missing; tests leave it as it is."""
    study, folder = grid([0]), tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", folder)
        write_tree(study)
        paths.metrics("laptop", "evaluate_generator", _missing(study)).unlink()
        render(study, CLAIMS)
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
    render(study, CLAIMS)
    second = outputs(target.parent)
    assert [name for name in OUTPUTS if first[name] != second[name]] == []


def test_the_first_lines_say_what_the_profile_is(rendered: tuple[dict[str, Any], Path]):
    study, folder = rendered
    text = (folder / "reports" / "laptop" / "report.md").read_text()
    head = text.partition("\n## ")[0]
    assert "It is no evidence about EQ-VAE" in head
    assert "SiT" in head
    assert "Seed 0 only" in head
    assert "1 of 32 cells not run, listed below. Without a pair of `eq` and `plain`" in head
    assert f"- `evaluate_generator@{_missing(study)}`" in text


@pytest.mark.parametrize(
    ("table", "stage"),
    [
        ("claims", "evaluate_autoencoder"),
        ("claims", "evaluate_generator"),
        ("endpoints", "evaluate_autoencoder"),
        ("endpoints", "evaluate_generator"),
        ("autoencoders", "evaluate_autoencoder"),
        ("equivariance", "evaluate_autoencoder"),
        ("transformed", "evaluate_autoencoder"),
        ("fine_tuning", "finetune_autoencoder"),
        ("generators", "evaluate_generator"),
        ("gains", "evaluate_generator"),
        ("sample_quality", "evaluate_generator"),
        ("speed_up", "evaluate_generator"),
    ],
)
def test_the_protocol_stands_under_every_table_of_measurements(
    table: str, stage: str, rendered: tuple[dict[str, Any], Path]
):
    text = (rendered[1] / "reports/laptop/tables" / f"{table}.md").read_text()
    _, found, rest = text.partition(f"Protocol of <code>{stage}</code>")
    assert found
    assert rest.index("- extractor: in_domain") < rest.index("</details>")
    report = (rendered[1] / "reports/laptop/report.md").read_text()
    # Claims and endpoints stand by claim in the report, each with a link to the protocol.
    assert table in ("claims", "endpoints") or text.strip() in report


def test_every_claim_is_in_the_report_and_every_endpoint_in_its_table(
    rendered: tuple[dict[str, Any], Path],
):
    folder = rendered[1] / "reports/laptop"
    claims = (folder / "report.md").read_text().partition("## Claims\n")[2]
    for claim in CLAIMS:
        assert claim.claim in claims.partition("## Autoencoders")[0]
    primary = [e for claim in CLAIMS for e in claim.endpoints if e.primary]
    table = (folder / "tables" / "endpoints.md").read_text()
    assert table.count("| primary ") == len(primary)


def test_links_of_the_report_exist(rendered: tuple[dict[str, Any], Path]):
    folder = rendered[1] / "reports" / "laptop"
    links = {part.split(")")[0] for part in (folder / "report.md").read_text().split("](")[1:]}
    assert {"#protocol", "../deviations.md", "../../params/claims.yaml"} <= links
    own = {link for link in links if not link.startswith(("#", "../"))}
    assert {link for link in own if not (folder / link).is_file()} == set()


def test_a_report_of_nothing_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    render({**grid([0, 1, 2]), "profile": "smoke"}, CLAIMS)
    folder = tmp_path / "reports" / "smoke"
    assert set(outputs(folder)) == OUTPUTS
    assert "88 of 88 cells not run" in (folder / "report.md").read_text()


def test_a_grid_without_generators_says_nothing_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    stages = ("cache_latents", "train_generator", "evaluate_generator")
    study = grid([0]) | {stage: {} for stage in stages}
    write_tree(study)
    render(study, CLAIMS)
    folder = tmp_path / "reports" / "laptop"
    assert set(outputs(folder)) == OUTPUTS
    text = (folder / "report.md").read_text()
    for word in ("## Generators", "convergence", "samples.png", "Speed-up", "Quality of samples"):
        assert word not in text, word
    assert "figures/training.png" in text
    assert "All 16 cells of the grid ran." in text
    assert (folder / "tables" / "generators.md").read_text() == "not in the grid\n"
    assert (folder / "tables" / "generators.tex").read_text() == "% not in the grid\n"


def test_spectra_hold_every_curve_of_every_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    study = grid([0, 1])
    write_tree(study)
    root = tmp_path / "reports" / "laptop" / "metrics"
    spectra(study, root, tmp_path / "spectra")
    with (tmp_path / "spectra.csv").open() as file:
        rows = list(csv.DictReader(file))
    # 2 autoencoders, 3 arms, 2 seeds; 4 rings of latents, 16 of images.
    assert len(rows) == 12 * (4 + 16)
    own = [row for row in rows if (row["autoencoder"], row["seed"]) == ("small_vq", "1")]
    eq = [float(r["power"]) for r in own if (r["arm"], r["metric"]) == ("eq", "latents")]
    assert eq == pytest.approx([0.05 * (ring / 8) ** -1.6 for ring in (1, 2, 3, 4)])


def test_autoencoders_without_a_spectrum_give_an_empty_panel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    study = grid([0])
    write_tree(study)
    root = tmp_path / "reports" / "laptop" / "metrics"
    for file in root.rglob("*-spectra.csv"):
        file.write_text("set,frequency,power\n")
    spectra(study, root, tmp_path / "spectra")
    assert (tmp_path / "spectra.csv").read_text().count("\n") == 1
    assert (tmp_path / "spectra.png").is_file()


def test_the_stage_leaves_metrics_alone_and_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shown, reported = [], []
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "GRID", tmp_path / "study.yaml")
    paths.GRID.write_text("profile: laptop\n")
    monkeypatch.setattr(render_report, "render", lambda *given: reported.append(given))
    monkeypatch.setattr(tracking, "sync", shown.append)
    monkeypatch.setattr(command, "load", lambda schema, cell: schema(cell=cell))
    monkeypatch.setattr(command, "die_with_parent", lambda: None)
    monkeypatch.setattr("sys.argv", ["render_report", "profile=laptop"])
    command.stage(render_report.main, render_report.__file__, record=False)
    assert reported == [({"profile": "laptop"}, CLAIMS)]
    assert shown == ["laptop"]
    assert not list(tmp_path.rglob("*.json"))


def test_the_stage_refuses_another_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "GRID", tmp_path / "study.yaml")
    paths.GRID.write_text("profile: smoke\n")
    cell = Cell(profile="laptop")
    with pytest.raises(ConfigError, match="profile = 'smoke': must be 'laptop'"):
        render_report.main(RenderReport(cell=cell), Run("render_report", cell, {}))


def test_seeds_are_those_that_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write_tree(study := grid([0, 1, 2]))
    text = tmp_path / "reports" / "laptop" / "report.md"
    render(study, CLAIMS)
    assert "Seeds 0, 1, 2 (n = 3)" in text.read_text()
    for seed, told in ((2, "Seeds 0, 1 of 0, 1, 2 (n = 2)"), (1, "Seed 0 of 0, 1, 2 only")):
        for stage in ("evaluate_autoencoder", "evaluate_generator"):
            for file in (tmp_path / "reports/laptop/metrics" / stage).glob(f"*-{seed}*.json"):
                file.unlink()
        render(study, CLAIMS)
        assert told in text.read_text()
