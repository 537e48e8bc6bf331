"""Figures over training steps: distance at each checkpoint (convergence) and training loss."""

from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from study.report.figures import arm_look, divided, draw_panels, log_ticks, panels, save
from study.report.names import FRECHET, count, first_present, label
from study.report.results import instances, where, write_csv
from study.report.table import Row, table_rows, without_schedules

_RANDOM: dict[str, Any] = {"linestyle": (0, (6, 4)), "linewidth": 0.9}
_FLOOR: dict[str, Any] = {"color": "black", "linestyle": ":", "linewidth": 1.2}
_CHOICES = ["data", "autoencoder", "arm", "scaling", "generator", "seed"]
# Column of the curve that is shown, and what it is.
_LOSSES = {
    "finetune_autoencoder": ("pixel", "L1 of pixels (running mean)"),
    "train_generator": ("loss", "training loss (running mean)"),
}
# Times beyond the curves that a level is drawn as a line; farther, it would press them together.
_REACH = 1.5
# Share of a curve that its running mean spans.
_SMOOTHING = 1 / 20


def convergence(grid: dict[str, Any], results: pd.DataFrame, target: Path) -> None:
    """Distance against training step, one panel per generator; `target` has no suffix."""
    metric = first_present(results, FRECHET)
    start = f"{metric}_random_latents"
    own = where(where(results, "stage", "evaluate_generator"), "metric", metric, start)
    floor = where(results, "metric", f"{metric}_floor")
    name = label(metric, own["n"])
    write_csv(pd.concat([own, floor]), target.with_suffix(".csv"))

    def draw(axes: Axes, rows: list[Row]) -> list[int]:
        for row in rows:
            _distances(axes, row.arm, row.of(own, metric))
        axes.set_ylabel(name)
        if axes.lines:
            axes.set_yscale("log")
            _random(axes, {row.arm: row.of(own, start)["value"].tolist() for row in rows})
            for value in where(floor, "data", rows[0].choices.get("data"))["value"]:
                _floor(axes, value)
            log_ticks(axes)
            _images_axis(axes, pd.concat([row.of(own, metric) for row in rows]))
        return [len(_by_seed(row.of(own, metric))) for row in rows]

    rows = without_schedules(table_rows(grid, "evaluate_generator"))
    content = panels(rows, lambda row: len(row.of(own, metric)))
    save(draw_panels(divided(content), draw), target)


def training(grid: dict[str, Any], root: Path, target: Path) -> None:
    """Running mean of training losses of autoencoders and generators; `target` has no suffix.

    Args:
        grid: `params/study.yaml`.
        root: folder `reports/<profile>/metrics`.
        target: path of the figure.
    """
    losses = _losses(grid, root)
    write_csv(losses, target.with_suffix(".csv"))

    def draw(axes: Axes, rows: list[Row]) -> list[int]:
        for row in rows:
            look = arm_look(row.arm) | {"linewidth": 1.3, "markersize": 4, "markevery": 0.2}
            for line in _by_seed(_losses_of(row, losses)):
                axes.plot(line["step"], line["smoothed"], **look)
        axes.set_ylabel(_LOSSES[_stage(rows[0])][1])
        return [len(_by_seed(_losses_of(row, losses))) for row in rows]

    rows = [row for stage in _LOSSES for row in table_rows(grid, stage)]
    content = panels(without_schedules(rows), lambda row: len(_losses_of(row, losses)))
    save(draw_panels(content, draw), target)


def _distances(axes: Axes, arm: str, records: pd.DataFrame) -> None:
    look = arm_look(arm)
    seeds = _by_seed(records)
    for line in seeds:
        thin = look | {"marker": "", "linewidth": 0.8, "alpha": 1 if len(seeds) == 1 else 0.5}
        low, value, high = (line[name].to_numpy(float) for name in ("low", "value", "high"))
        # Nothing where no interval was measured; never a bar of negative length.
        bars = [np.maximum(value - low, 0), np.maximum(high - value, 0)]
        axes.errorbar(line["step"], value, yerr=bars, capsize=2, elinewidth=0.8, **thin)
    if seeds:
        steps, means = zip(*_means(records), strict=True)
        axes.plot(steps, means, linewidth=2, markersize=5, **look)


def _by_seed(records: pd.DataFrame) -> list[pd.DataFrame]:
    return [pd.DataFrame(line) for _, line in records.groupby("seed", dropna=False)]


def _means(records: pd.DataFrame) -> list[tuple[int, float]]:
    steps = sorted({int(step) for step in records["step"]})
    return [(step, float(np.mean(where(records, "step", step)["value"]))) for step in steps]


def _random(axes: Axes, found: dict[str, list[float]]) -> None:
    """What random latents give by arm, within reach of the curves; else the least and the most."""
    levels = {arm: fmean(values) for arm, values in found.items() if values}
    if not levels:
        return
    low, high = min(levels.values()), max(levels.values())
    look: dict[str, Any] = {"fontsize": 8, "ha": "right", "va": "top"}
    if high < _REACH * axes.get_ylim()[1]:
        for arm, value in levels.items():
            axes.axhline(value, color=arm_look(arm)["color"], **_RANDOM)
        axes.text(0.98, low, "random latents", transform=axes.get_yaxis_transform(), **look)
    else:
        ends = dict.fromkeys(f"{value:.3g}" for value in (low, high))
        text = f"random latents {' to '.join(ends)} ↑"
        axes.text(0.98, 0.98, text, transform=axes.transAxes, **look)


def _floor(axes: Axes, value: float) -> None:
    """What real images have, within reach of the curves; else its value."""
    look: dict[str, Any] = {"fontsize": 8, "ha": "left", "va": "bottom"}
    if value > axes.get_ylim()[0] / _REACH:
        axes.axhline(value, **_FLOOR)
        axes.text(0.02, value, "floor", transform=axes.get_yaxis_transform(), **look)
    else:
        axes.text(0.02, 0.02, f"floor {value:.3g} ↓", transform=axes.transAxes, **look)


def _images_axis(axes: Axes, records: pd.DataFrame) -> None:
    seen = records.dropna(subset=["images_seen"])
    if seen.empty:
        return
    ratio = float(seen["images_seen"].iloc[-1]) / float(seen["step"].iloc[-1])
    top = axes.secondary_xaxis(
        "top", functions=(partial(np.multiply, ratio), partial(np.multiply, 1 / ratio))
    )
    top.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(round(value))))
    top.set_xlabel("images seen", fontsize=8)
    top.tick_params(labelsize=8)


def _stage(row: Row) -> str:
    return "train_generator" if "generator" in row.choices else "finetune_autoencoder"


def _losses_of(row: Row, losses: pd.DataFrame) -> pd.DataFrame:
    return row.of(where(losses, "stage", _stage(row)), _LOSSES[_stage(row)][0])


def _losses(grid: dict[str, Any], root: Path) -> pd.DataFrame:
    frames = []
    for stage, instance, cell in instances(grid):
        path = root / stage / f"{instance}.csv"
        if stage in _LOSSES and path.is_file():
            choices = {name: getattr(cell, name) for name in _CHOICES}
            curve = _curve(path, _LOSSES[stage][0])
            frames.append(curve.assign(stage=stage, **choices))
    columns = ["stage", *_CHOICES, "metric", "step", "value", "smoothed"]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    return table.reindex(columns=columns)


def _curve(path: Path, metric: str) -> pd.DataFrame:
    curve = pd.read_csv(path)
    # An arm that trains nothing logs no losses.
    values = curve[metric].dropna() if metric in curve else pd.Series(dtype=float)
    span = max(1, round(len(values) * _SMOOTHING))
    smoothed = values.rolling(span, center=True, min_periods=1).mean()
    step = curve["step"][values.index]
    return pd.DataFrame({"metric": metric, "step": step, "value": values, "smoothed": smoothed})
