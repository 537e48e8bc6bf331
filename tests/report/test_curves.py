from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from synthetic import results, values, with_arms

from study.report import curves
from study.report.curves import convergence

OTHERS = ("explicit", "eq_scale", "eq_paper", "eq_rotation", "eq_bicubic")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures in the order in which they were saved."""
    found: list[Figure] = []
    monkeypatch.setattr(curves, "save", lambda figure, target: found.append(figure))
    return found


def curves_of(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if len(np.asarray(line.get_xdata())) > 2]


@pytest.mark.parametrize(("factor", "is_far"), [(0.7, False), (20.0, True)])
def test_levels_near_the_curves_are_drawn_and_far_ones_told(
    factor: float, is_far: bool, two_seeds: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    found = results(two_seeds)
    random = found["metric"] == "fd_in_domain_random_latents"
    found = found.assign(value=found["value"].where(~random, found["value"] * factor))
    convergence(two_seeds, found, tmp_path / "figure")
    every = [axes for axes in drawn[0].axes if curves_of(axes)]
    assert len(every) == 4
    for axes in every:
        highest = max(np.asarray(line.get_ydata()).max() for line in curves_of(axes))
        assert (axes.get_ylim()[1] > 1.2 * highest) != is_far
    of_sit = [
        np.mean(values(found, generator="sit", arm=arm, metric="fd_in_domain_random_latents"))
        for arm in ("eq", "plain")
    ]
    told = f"random latents {of_sit[0]:.3g} to {of_sit[1]:.3g} ↑" if is_far else "random latents"
    sit = next(axes for axes in every if axes.get_title().startswith("SiT"))
    assert told in [text.get_text() for text in sit.texts]


@pytest.mark.parametrize("number", [4, 5])
def test_more_arms_than_can_be_told_apart_have_two_panels(
    number: int, two_seeds: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    convergence(*with_arms(two_seeds, results(two_seeds), *OTHERS[:number]), tmp_path / "figure")
    colours = {
        axes.get_title().replace("\n", " "): len({line.get_color() for line in curves_of(axes)})
        for axes in drawn[0].axes
    }
    of_sit = {title: number for title, number in colours.items() if title.startswith("SiT")}
    whole, divided = {"SiT (n = 2)": 6}, {"SiT (n = 2)": 2, "SiT, other recipes (n = 2)": 7}
    assert of_sit == (divided if number == 5 else whole)


@pytest.mark.parametrize(("factor", "is_far"), [(1.0, True), (16.0, False)])
def test_the_floor_is_drawn_near_the_curves_and_told_far_below(
    factor: float, is_far: bool, two_seeds: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    found = results(two_seeds)
    floors = found["metric"] == "fd_in_domain_floor"
    found = found.assign(value=found["value"].where(~floors, found["value"] * factor))
    level = values(found, metric="fd_in_domain_floor")[0]
    convergence(two_seeds, found, tmp_path / "figure")
    for axes in (axes for axes in drawn[0].axes if curves_of(axes)):
        texts = [text.get_text() for text in axes.texts]
        assert ("floor" in texts, f"floor {level:.3g} ↓" in texts) == (not is_far, is_far)
        assert (axes.get_ylim()[0] < level) != is_far


def test_where_one_arm_s_random_latents_are_far_none_is_drawn(
    two_seeds: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    found = results(two_seeds)
    random, of_eq = found["metric"] == "fd_in_domain_random_latents", found["arm"] == "eq"
    found = found.assign(value=found["value"].where(~random, found["value"] * 0.7))
    found = found.assign(value=found["value"].where(~(random & of_eq), found["value"] * 9))
    convergence(two_seeds, found, tmp_path / "figure")
    for axes in (axes for axes in drawn[0].axes if curves_of(axes)):
        highest = max(np.asarray(line.get_ydata()).max() for line in curves_of(axes))
        assert axes.get_ylim()[1] < 1.2 * highest
