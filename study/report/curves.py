"""Figures over training steps: distance at each checkpoint (convergence) and training loss."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from study.report.figures import arm_look, draw_panels, panels, save
from study.report.names import FRECHET, count, first_present, label
from study.report.results import instances, write_csv
from study.report.table import Row, table_rows

_RANDOM: dict[str, Any] = {"linestyle": (0, (6, 4)), "linewidth": 0.9}
_FLOOR: dict[str, Any] = {"color": "black", "linestyle": ":", "linewidth": 1.2}
_CHOICES = ["data", "autoencoder", "arm", "scaling", "generator", "seed"]
# Column of the curve that is shown, and what it is.
_LOSSES = {
    "finetune_autoencoder": ("pixel", "L1 of pixels (running mean)"),
    "train_generator": ("loss", "training loss (running mean)"),
}
# Share of a curve that its running mean spans.
_SMOOTHING = 1 / 20


def convergence(grid: dict[str, Any], results: pd.DataFrame, target: Path) -> None:
    """Distance against training step, one panel per generator; `target` has no suffix."""
    metric = first_present(results, FRECHET)
    start = f"{metric}_random_latents"
    own = results[results["metric"].isin([metric, start])]
    own = own[own["stage"] == "evaluate_generator"]
    floor = results[results["metric"] == f"{metric}_floor"]
    name = label(metric, own["n"])
    write_csv(pd.concat([own, floor]), target.with_suffix(".csv"))

    def draw(axes: Axes, rows: list[Row]) -> None:
        for row in rows:
            _distances(axes, row.arm, row.of(own, metric))
            if values := row.of(own, start)["value"].tolist():
                axes.axhline(sum(values) / len(values), color=arm_look(row.arm)["color"], **_RANDOM)
        data = rows[0].choices.get("data")
        for value in floor.loc[floor["data"] == data, "value"]:
            axes.axhline(value, **_FLOOR)
        axes.set_ylabel(name)
        if axes.lines:
            _log_axis(axes)
            _images_axis(axes, pd.concat([row.of(own, metric) for row in rows]))

    extra = [
        Line2D([], [], color="grey", label="random latents", **_RANDOM),
        Line2D([], [], label="floor: real images", **_FLOOR),
    ]
    content = panels(table_rows(grid, "evaluate_generator"))
    save(draw_panels(content, draw, extra), target)


def training(grid: dict[str, Any], root: Path, target: Path) -> None:
    """Running mean of training losses of autoencoders and generators; `target` has no suffix.

    Args:
        grid: `params/study.yaml`.
        root: folder `reports/<profile>/metrics`.
        target: path of the figure.
    """
    losses = _losses(grid, root)
    write_csv(losses, target.with_suffix(".csv"))

    def draw(axes: Axes, rows: list[Row]) -> None:
        for row in rows:
            look = arm_look(row.arm) | {"linewidth": 1.3, "marker": ""}
            for _, line in _losses_of(row, losses).groupby("seed", dropna=False):
                axes.plot(line["step"], line["smoothed"], **look)
        axes.set_ylabel(_LOSSES[_stage(rows[0])][1])

    content = {
        # An arm that trains nothing has no curve, and so no place in the legend.
        title: [row for row in rows if len(_losses_of(row, losses))] or rows
        for stage in _LOSSES
        for title, rows in panels(table_rows(grid, stage)).items()
    }
    save(draw_panels(content, draw), target)


def _distances(axes: Axes, arm: str, records: pd.DataFrame) -> None:
    look = arm_look(arm)
    seeds = [line for _, line in records.groupby("seed", dropna=False)]
    for line in seeds:
        thin = {**look, "marker": "", "linewidth": 0.8, "alpha": 1 if len(seeds) == 1 else 0.5}
        bars = _bars(line)
        axes.errorbar(line["step"], line["value"], yerr=bars, capsize=2, elinewidth=0.8, **thin)
    mean = records.groupby("step")["value"].mean()
    if len(mean):
        axes.plot(mean.index.astype(float), mean, linewidth=2, markersize=5, **look)


def _bars(line: pd.DataFrame) -> list[pd.Series] | None:
    """Lengths of the error bars over samples; a resampled bound may lie inside the value."""
    if line["low"].isna().any() or line["high"].isna().any():
        return None
    return [(line["value"] - line["low"]).clip(0), (line["high"] - line["value"]).clip(0)]


def _log_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # Marks at 1, 2, 5 would leave an axis of less than half a decade almost bare.
    locator = LogLocator(subs=(1, 2, 5)) if high / low > 4 else MaxNLocator(5)
    axes.yaxis.set_major_locator(locator)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _images_axis(axes: Axes, records: pd.DataFrame) -> None:
    seen = records.dropna(subset=["images_seen"])
    if seen.empty:
        return
    ratio = float(seen["images_seen"].iloc[-1]) / float(seen["step"].iloc[-1])
    top = axes.secondary_xaxis("top", functions=(lambda x: x * ratio, lambda x: x / ratio))
    top.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(round(value))))
    top.set_xlabel("images seen", fontsize=8)
    top.tick_params(labelsize=8)


def _stage(row: Row) -> str:
    return "train_generator" if "generator" in row.choices else "finetune_autoencoder"


def _losses_of(row: Row, losses: pd.DataFrame) -> pd.DataFrame:
    return row.of(losses[losses["stage"] == _stage(row)], _LOSSES[_stage(row)][0])


def _losses(grid: dict[str, Any], root: Path) -> pd.DataFrame:
    frames = []
    for stage, instance, cell in instances(grid):
        path = root / stage / f"{instance}.csv"
        if stage in _LOSSES and path.is_file():
            choices = {name: getattr(cell, name) for name in _CHOICES}
            frames.append(_curve(path, _LOSSES[stage][0]).assign(stage=stage, **choices))
    columns = ["stage", *_CHOICES, "metric", "step", "value", "smoothed"]
    frames = [frame for frame in frames if len(frame)]
    return (
        pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
    )


def _curve(path: Path, metric: str) -> pd.DataFrame:
    curve = pd.read_csv(path)
    # An arm that trains nothing logs no losses.
    values = curve[metric].dropna() if metric in curve else pd.Series(dtype=float)
    span = max(1, round(len(values) * _SMOOTHING))
    smoothed = values.rolling(span, center=True, min_periods=1).mean()
    step = curve["step"][values.index]
    return pd.DataFrame({"metric": metric, "step": step, "value": values, "smoothed": smoothed})
