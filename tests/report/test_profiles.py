"""Reports of the study's own profiles as a reader meets them: made-up numbers, the real grids."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from synthetic import profile_grid, write_tree

from study import paths
from study.config.claims import load_claims
from study.report.render import render
from study.report.strips import STAGE as EVALUATED

CLAIMS = load_claims(paths.PARAMS / "claims.yaml")


@pytest.fixture(scope="module")
def autoencoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Grid and report of the profile without generators."""
    study, folder = profile_grid("autoencoders"), tmp_path_factory.mktemp("autoencoders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", folder)
        write_tree(study)
        render(study, CLAIMS)
    return study, folder / "reports" / "autoencoders"


def arms_of(study: dict[str, Any]) -> set[str]:
    return {choices["arm"] for choices in study[EVALUATED].values()}


def test_the_first_screen_says_what_was_found_of_each_claim(
    autoencoders: tuple[dict[str, Any], Path],
):
    head = (autoencoders[1] / "report.md").read_text().partition("\n## ")[0]
    lines = {int(n): rest for n, rest in re.findall(r"^\| (\d+)\. (.+)$", head, re.MULTILINE)}
    assert lines.keys() >= {1, 2, 6, 7, 8, 19, 20}
    assert all(re.search(r"[+−]\d", line) for line in lines.values())
    assert "What equivariance costs" in head
    assert "equivariance error and PSNR: `taesd` ×0.4" in head


def test_what_was_not_trained_has_no_section(autoencoders: tuple[dict[str, Any], Path]):
    text = (autoencoders[1] / "report.md").read_text()
    assert "## Autoencoders" in text
    assert "## Generators" not in text
    assert "#generators" not in text
    assert "- Claim 3, Generators are better after equally many iterations: needs gen" in text


def test_every_arm_is_in_every_figure_and_has_its_cost(autoencoders: tuple[dict[str, Any], Path]):
    study, folder = autoencoders
    arms = arms_of(study)
    assert len(arms) == 9
    for figure in ("headline", "spectra"):
        assert set(pd.read_csv(folder / f"figures/{figure}.csv")["arm"]) == arms
    for figure in ("fine_tuning", "training"):
        assert set(pd.read_csv(folder / f"figures/{figure}.csv")["arm"]) == arms - {"pretrained"}
    for figure, rows in (("latents", 9), ("transforms", 10), ("reconstructions", 10)):
        with Image.open(folder / f"figures/{figure}.png") as picture:
            assert picture.height > rows * 96
    text = (folder / "report.md").read_text()
    costs = text.partition("## Cost\n")[2].partition("\n## ")[0]
    work = text.partition("### Training\n")[2].partition("\n## ")[0]
    for arm in arms - {"pretrained"}:
        assert f" {arm} " in work
    assert "finetune_autoencoder" in costs


def test_drawings_have_letters_of_one_size_in_the_page(autoencoders: tuple[dict[str, Any], Path]):
    folder = autoencoders[1]
    page = (folder / "report.html").read_text()
    shown = re.findall(r'<img src="data:[^"]+" alt="([^"]*)"(?: width="(\d+)")?', page)
    widths = {alt: int(width) for alt, width in shown if width}
    for alt, name in (("Spectra", "spectra"), ("Fine-tuning", "fine_tuning")):
        with Image.open(folder / f"figures/{name}.png") as picture:
            assert widths[alt] == round(picture.width * 96 / 150)
    assert "Latents" not in widths
    # Half of a page of 1240 pixels takes the headline figure as it is.
    assert max(width for alt, width in widths.items() if "equivariance costs" in alt) < 600


def test_what_is_planned_is_listed_as_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = profile_grid("lab")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write_tree({stage: cells for stage, cells in study.items() if stage != "planned"})
    render(study, CLAIMS)
    folder = tmp_path / "reports" / "lab"
    table = pd.read_csv(folder / "tables" / "generators.csv", dtype=str)
    shown = table[(table == "not run").any(axis=1)]
    ran = table.drop(shown.index)
    trained = trained_in(study["train_generator"])
    assert set(zip(ran["generator"], ran["arm"], strict=True)) == trained
    planned = trained_in(study["planned"]["train_generator"]) - trained
    assert planned
    assert planned <= set(zip(shown["generator"], shown["arm"], strict=True))
    left = sum(map(len, study["planned"].values()))
    left += sum(len(study[stage]) for stage in ("pretrain_autoencoder", "cache_latents"))
    ran_cells = len(list((folder / "metrics").glob("*/*.json")))
    assert f" {left} of {left + ran_cells} cells not run, listed below." in text_of(folder)
    assert "SiT, time shift 0.5, 2 times the rate" in text_of(folder)
    # Claim 18 asks for DiT on more arms than have it, and has SiT beside it.
    section = text_of(folder).partition("### Claim 18: ")[2].partition("\n### ")[0]
    assert "- No endpoint that decides the verdict has run; " in section
    assert "Cost: not run" not in text_of(folder)
    assert set(pd.read_csv(folder / "results.csv")["seed"].dropna()) == {
        cell["seed"] for cell in study["finetune_autoencoder"].values()
    }


def trained_in(cells: dict[str, dict[str, Any]]) -> set[tuple[str, str]]:
    return {(cell["generator"], cell["arm"]) for cell in cells.values()}


def text_of(folder: Path) -> str:
    return (folder / "report.md").read_text()
