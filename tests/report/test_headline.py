"""The figure of the first screen, drawn for a grid with every generator."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from synthetic import grid, write_tree

from study import paths
from study.report.headline import caption, headline_figure
from study.report.names import FOREMOST
from study.report.results import collect, read
from study.report.speed import speed_up_table
from study.report.table import Table


def drawn(folder: Path, study: dict, speed: Table) -> tuple[int, int]:
    results = collect(study, folder / "reports/laptop/metrics")
    headline_figure(study, results, speed, folder / "headline")
    with Image.open(folder / "headline.png") as picture:
        return picture.size


def test_the_speed_up_has_a_panel_only_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write_tree(study := grid([0, 1]))
    root = tmp_path / "reports/laptop/metrics"
    results = collect(study, root)
    speed = speed_up_table(study, results, read(study, root))
    with_panel = drawn(tmp_path, study, speed)
    assert "how many times sooner eq reaches" in caption(study, results, speed)
    for row in speed.numbers:
        row["steps"] = None
    without = drawn(tmp_path, study, speed)
    assert caption(study, results, speed).endswith("Speed-up: not bounded.")
    assert with_panel[0] == without[0]
    assert with_panel[1] > without[1] + 150


def test_generators_that_have_not_run_take_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write_tree(study := grid([0, 1]))
    root = tmp_path / "reports/laptop/metrics"
    speed = Table("speed_up")
    every = drawn(tmp_path, study, speed)
    for file in (root / "evaluate_generator").glob("*.json"):
        if "-sit-" not in file.name:
            file.unlink()
    some = drawn(tmp_path, study, speed)
    generators = study["evaluate_generator"]
    alone = {name: cell for name, cell in generators.items() if "-sit-" in name}
    assert some == drawn(tmp_path, study | {"evaluate_generator": alone}, speed)
    assert some[1] < every[1]


def test_of_many_generators_the_foremost_are_shown_and_the_caption_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    study = grid([0])
    cells = study["evaluate_generator"]
    few = len({cell["generator"] for cell in cells.values()})
    for name, cell in list(cells.items()):
        if "-sit-" in name:
            for other in ("a", "b", "c"):
                autoencoder = cell["autoencoder"]
                cells[name.replace(autoencoder, other)] = cell | {"autoencoder": other}
    write_tree(study)
    results = collect(study, tmp_path / "reports/laptop/metrics")
    speed = Table("speed_up")
    assert f"for the first 4 of {few + 3} comparisons, mean" in caption(study, results, speed)
    many = drawn(tmp_path, study, speed)
    write_tree(study := grid([0]))
    assert drawn(tmp_path, study, speed) == many


def test_data_of_the_figure_are_of_what_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    study = grid([0, 1])
    for name, cell in list(study["evaluate_generator"].items()):
        added = name.replace("-standardised", "-fixed")
        study["evaluate_generator"][added] = cell | {"scaling": "fixed"}
    write_tree(study)
    drawn(tmp_path, study, Table("speed_up"))
    data = pd.read_csv(tmp_path / "headline.csv")
    keys = ["generator", "autoencoder", "scaling", "arm", "seed", "images_seen"]
    assert not data.duplicated(keys).any()
    panels = data[["generator", "autoencoder", "scaling"]].drop_duplicates()
    assert len(panels) == FOREMOST


def test_other_recipes_are_left_to_the_figures_that_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    study = grid([0, 1])
    for name, cell in list(study["evaluate_generator"].items()):
        added = name.replace("-eq-", "-eq_paper-")
        study["evaluate_generator"][added] = cell | {"arm": cell["arm"].replace("eq", "eq_paper")}
    write_tree(study)
    drawn(tmp_path, study, Table("speed_up"))
    results = collect(study, tmp_path / "reports/laptop/metrics")
    assert "other recipes are among the convergence curves" in caption(study, results, Table("x"))
    arms = set(pd.read_csv(tmp_path / "headline.csv")["arm"])
    assert {"plain", "eq"} <= arms
    assert "eq_paper" not in arms
