import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from synthetic import results, values, with_arms

from study.config.claims import load_claims
from study.report import arms
from study.report.arms import arms_figure, compared_arms
from study.report.render import render
from study.report.results import where


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures in the order in which they were saved."""
    found: list[Figure] = []
    monkeypatch.setattr(arms, "save", lambda figure, target: found.append(figure))
    return found


def without(records: pd.DataFrame, **choices: object) -> pd.DataFrame:
    found = pd.Series(True, index=records.index)
    for name, value in choices.items():
        found &= records[name] == value
    return pd.DataFrame(records[~found])


def data(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.subfigs[0].axes[0].get_yticklabels()]


def panel(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.subfigs[0].axes if axes.get_title() == title)


def test_arms_stand_beside_each_other_in_the_order_of_their_distance(
    two_seeds: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    grid, found = with_arms(two_seeds, results(two_seeds), "explicit", "eq_paper")
    assert [*compared_arms(grid, found)] == ["SiT"]
    arms_figure(grid, found, tmp_path / "arms")
    order = ["eq", "plain", "explicit", "eq_paper"]
    assert names(drawn[0]) == order
    low, high = panel(drawn[0], "FD in-domain 1k").get_ylim()
    assert low > 3 > 0 > high
    measures = {
        "FD in-domain 1k": {"generator": "sit", "step": 600, "metric": "fd_in_domain"},
        "PSNR [dB]": {"autoencoder": "small_kl", "metric": "psnr_db"},
        "Intrinsic dim. 512": {"autoencoder": "small_kl", "metric": "intrinsic_dimension_512"},
    }
    for title, choices in measures.items():
        axes = panel(drawn[0], title)
        strokes = [line for line in axes.lines if line.get_marker() == "|"]
        marks = [line for line in axes.lines if line.get_marker() not in ("|", "None")]
        for place, arm in enumerate(order):
            wanted = values(found, arm=arm, **choices)
            assert list(np.asarray(strokes[place].get_xdata())) == wanted
            assert set(np.asarray(strokes[place].get_ydata())) == {place}
            assert np.asarray(marks[place].get_xdata()) == pytest.approx([np.mean(wanted)])
            assert list(np.asarray(marks[place].get_ydata())) == [place]
        (control,) = (line for line in axes.lines if line.get_marker() == "None")
        assert set(np.asarray(control.get_xdata())) == {
            np.mean(values(found, arm="plain", **choices))
        }
        rows = [row for row in data(tmp_path / "arms.csv") if row["metric"] == choices["metric"]]
        assert [float(row["value"]) for row in rows if row["arm"] == "eq"] == values(
            found, arm="eq", **choices
        )


def test_the_autoencoder_s_measures_begin_a_line(
    two_seeds: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    arms_figure(*with_arms(two_seeds, results(two_seeds), "explicit"), tmp_path / "arms")
    places = {axes.get_title(): axes.get_subplotspec() for axes in drawn[0].subfigs[0].axes}
    for title, line in (("FD in-domain 1k", 0), ("PSNR [dB]", 1)):
        place = places[title]
        assert place is not None
        assert (place.rowspan.start, place.colspan.start) == (line, 0)


def test_arms_of_other_seeds_are_ordered_by_those_they_share_with_the_control(
    two_seeds: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    grid, found = with_arms(two_seeds, results(two_seeds), "explicit")
    # Seed 1 is twice as far with every arm; what has it not would seem the nearer.
    doubled = (found["seed"] == 1) & (found["metric"] == "fd_in_domain")
    found = found.assign(value=found["value"].where(~doubled, 2 * found["value"]))
    found = without(found, stage="evaluate_generator", arm="explicit", seed=1)
    arms_figure(grid, found, tmp_path / "arms")
    assert names(drawn[0]) == ["eq (2)", "plain (2)", "explicit (1)"]
    seeds = {(row["arm"], row["seed"]) for row in data(tmp_path / "arms.csv")}
    # Autoencoders are shown of the seeds that have a generator.
    assert seeds == {("eq", "0"), ("eq", "1"), ("plain", "0"), ("plain", "1"), ("explicit", "0")}


def test_an_arm_without_the_main_distance_is_left_out(
    two_seeds: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    grid, found = with_arms(two_seeds, results(two_seeds), "explicit", "eq_paper")
    found = without(found, arm="eq_paper", metric="fd_in_domain")
    arms_figure(grid, found, tmp_path / "arms")
    assert names(drawn[0]) == ["eq", "plain", "explicit"]


def test_controls_of_the_schedule_are_not_compared(two_seeds: dict[str, Any]):
    grid, found = with_arms(two_seeds, results(two_seeds), "explicit")
    for instance, cell in list(grid["evaluate_generator"].items()):
        if cell["generator"] == "sit":
            other = {**cell, "generator": "sit_shift_50"}
            grid["evaluate_generator"][instance.replace("sit", "sit_shift_50")] = other
    shifted = where(where(found, "generator", "sit"), "stage", "evaluate_generator")
    found = pd.concat([found, shifted.assign(generator="sit_shift_50")])
    assert [*compared_arms(grid, found)] == ["SiT"]


def test_two_arms_are_left_to_the_curves(
    two_seeds: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    found = results(two_seeds)
    assert compared_arms(two_seeds, found) == {}
    arms_figure(two_seeds, found, tmp_path / "arms")
    (text,) = drawn[0].texts
    assert text.get_text() == "fewer than 3 arms ran of each generator"
    assert data(tmp_path / "arms.csv") == []


def test_the_report_shows_the_figure_where_there_is_something_to_compare(
    two_seeds: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    claims = load_claims(Path(__file__).parents[2] / "params" / "claims.yaml")
    report = tmp_path / "reports" / "laptop" / "report.md"
    render(two_seeds, claims)
    assert "figures/arms.png" not in report.read_text()
    more, found = with_arms(two_seeds, results(two_seeds), "explicit")
    monkeypatch.setattr("study.report.render.collect", lambda grid, root: found)
    render(more, claims)
    assert "figures/arms.png" in report.read_text()
    # Arm released, which claim 1 asks for beside its own endpoints, is in no grid of this one.
    claim = report.read_text().partition("### Claim 1:")[2].partition("### Claim 2:")[0]
    assert "Secondary endpoints that did not run need arm released." in claim
