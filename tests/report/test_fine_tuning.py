import csv
from pathlib import Path

from synthetic import grid, write_tree

from study.report.fine_tuning import FOLLOWED, fine_tuning_figure, fine_tuning_table
from study.report.results import collect, costs


def test_every_arm_that_trains_has_its_change_and_its_work(root: Path) -> None:
    study = grid([0, 1])
    write_tree(study)
    table = fine_tuning_table(study, collect(study, root), costs(study, root))
    assert [row["Arm"] for row in table.shown] == ["plain", "eq"] * 2
    plain, eq = table.shown[:2]
    assert plain["Change, held out reconstruction"] == "2 % (not at rest)"
    assert eq["Change, held out reconstruction"] == "0.5 %"
    assert eq["Change, equivariance error"] == "1 %"
    assert (plain["Relative to plain"], eq["Relative to plain"]) == ("1.00", "0.75")
    assert eq["Training [min]"] == "1.5"


def test_what_did_not_run_is_said(root: Path) -> None:
    study = grid([0])
    table = fine_tuning_table(study, collect(study, root), costs(study, root))
    assert {row["GFLOP per image"] for row in table.shown} == {"not run"}
    assert {row["Change, equivariance error"] for row in table.shown} == {"not run"}


def test_the_figures_data_hold_what_was_followed(root: Path, tmp_path: Path) -> None:
    study = grid([0])
    write_tree(study)
    fine_tuning_figure(study, root, tmp_path / "figure")
    with (tmp_path / "figure.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["metric"] for row in rows} == set(FOLLOWED)
    assert {row["arm"] for row in rows} == {"plain", "eq"}
    # Ten points of four metrics for two arms of two autoencoders.
    assert len(rows) == 160
