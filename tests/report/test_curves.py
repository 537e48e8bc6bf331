import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from synthetic import grid, write_tree

from study import paths
from study.report import arms, curves
from study.report.arms import arms_figure, compared_arms
from study.report.curves import convergence
from study.report.results import collect, where

OTHERS = ("explicit", "eq_scale", "eq_paper", "eq_rotation", "eq_bicubic")
STAGES = ("evaluate_autoencoder", "evaluate_generator")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures in the order in which they were saved."""
    found: list[Figure] = []
    for module in (arms, curves):
        monkeypatch.setattr(module, "save", lambda figure, target: found.append(figure))
    return found


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A grid of two seeds of which every cell ran."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write_tree(made := grid([0, 1]))
    return made


def results(study: dict[str, Any]) -> pd.DataFrame:
    return collect(study, paths.report("laptop") / "metrics")


def with_arms(study: dict[str, Any], *names: str) -> tuple[dict[str, Any], pd.DataFrame]:
    """SiT and its autoencoder with further arms, each a little worse than `plain`."""
    found = results(study)
    study, frames = study | {stage: dict(study[stage]) for stage in STAGES}, [found]
    for place, name in enumerate(names, start=1):
        for stage in STAGES:
            for instance, cell in list(study[stage].items()):
                if cell["arm"] == "plain" and cell.get("generator", "sit") == "sit":
                    study[stage][instance.replace("plain", name)] = {**cell, "arm": name}
        own = where(where(found, "arm", "plain"), "stage", *STAGES)
        frames.append(own.assign(arm=name, value=own["value"] * (1 + 0.01 * place)))
    return study, pd.concat(frames)


def values(records: pd.DataFrame, **choices: object) -> list[float]:
    for name, value in choices.items():
        records = where(records, name, value)
    return [float(value) for value in records["value"]]


def data(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def curves_of(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if len(np.asarray(line.get_xdata())) > 2]


@pytest.mark.parametrize(("factor", "is_far"), [(0.7, False), (20.0, True)])
def test_levels_near_the_curves_are_drawn_and_far_ones_told(
    factor: float, is_far: bool, study: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    found = results(study)
    random = found["metric"] == "fd_in_domain_random_latents"
    found = found.assign(value=found["value"].where(~random, found["value"] * factor))
    convergence(study, found, tmp_path / "figure")
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


@pytest.mark.parametrize("number", [2, 5])
def test_more_arms_than_can_be_told_apart_have_two_panels(
    number: int, study: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    convergence(*with_arms(study, *OTHERS[:number]), tmp_path / "figure")
    colours = {
        axes.get_title().replace("\n", " "): len({line.get_color() for line in curves_of(axes)})
        for axes in drawn[0].axes
    }
    of_sit = {title: number for title, number in colours.items() if title.startswith("SiT")}
    whole, divided = {"SiT (n = 2)": 4}, {"SiT (n = 2)": 2, "SiT, other recipes (n = 2)": 7}
    assert of_sit == (divided if number == 5 else whole)


def test_arms_stand_beside_each_other_in_the_order_of_their_distance(
    study: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    grid, found = with_arms(study, "explicit", "eq_paper")
    assert [*compared_arms(grid, found)] == ["SiT"]
    arms_figure(grid, found, tmp_path / "arms")
    part = drawn[0].subfigs[0]
    order = [label.get_text() for label in part.axes[0].get_yticklabels()]
    assert order == ["eq", "plain", "explicit", "eq_paper"]
    shown = data(tmp_path / "arms.csv")
    of_sit = {"generator": "sit", "step": 600, "metric": "fd_in_domain"}
    for arm in order:
        own = [row for row in shown if row["arm"] == arm]
        last = [float(row["value"]) for row in own if row["metric"] == "fd_in_domain"]
        assert last == values(found, arm=arm, **of_sit)
        psnr = [float(row["value"]) for row in own if row["metric"] == "psnr_db"]
        assert psnr == values(found, arm=arm, metric="psnr_db", autoencoder="small_kl")
    titles = [axes.get_title() for axes in part.axes if axes.axison]
    assert titles[0] == "FD in-domain 1k"
    assert {"PSNR [dB]", "Equiv. error", "Intrinsic dim. 512"} <= set(titles)


def test_autoencoders_are_shown_of_the_seeds_that_have_a_generator(
    study: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    grid, found = with_arms(study, "explicit")
    arm, stage, seed = (found[name] for name in ("arm", "stage", "seed"))
    unfinished = (arm == "explicit") & (stage == "evaluate_generator") & (seed == 1)
    arms_figure(grid, pd.DataFrame(found[~unfinished]), tmp_path / "arms")
    seeds = {(row["arm"], row["seed"]) for row in data(tmp_path / "arms.csv")}
    assert seeds == {("eq", "0"), ("eq", "1"), ("plain", "0"), ("plain", "1"), ("explicit", "0")}


def test_two_arms_are_left_to_the_curves(
    study: dict[str, Any], tmp_path: Path, drawn: list[Figure]
):
    found = results(study)
    assert compared_arms(study, found) == {}
    arms_figure(study, found, tmp_path / "arms")
    (text,) = drawn[0].texts
    assert text.get_text() == "fewer than 3 arms ran of each generator"
    assert data(tmp_path / "arms.csv") == []
