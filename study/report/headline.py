"""Figure of a report's first screen: convergence and speed-up, or what equivariance costs."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from study.report.figures import STYLE, arm_look, legend, log_ticks, panels, sample_size, save
from study.report.names import (
    BOUNDS,
    CONTROL,
    FIRST,
    FOREMOST,
    FRECHET,
    NOT_RUN,
    TREATMENT,
    count,
    first_present,
    label,
)
from study.report.results import where, write_csv
from study.report.table import Row, Table, default_schedule, table_rows
from study.statistics import t_interval

ERROR = "equivariance_error"
QUALITY = ("rfid", "rfd_inception", "rfd_in_domain", "psnr_db")
"""Of reconstructions; the first that was measured is drawn against the error."""
FRACTION = 0.5
"""Of the control's run, whose distance the speed-up shown is about."""
_WIDTH, _PANELS = 6.2, {1: 2.1, 2: 2.7}
"""Of the figure, and height of one and two lines of panels, in inches: half a page takes it, and
a report's first screen."""
_GENERATED = [
    *("arm", "seed", "generator", "autoencoder", "scaling"),
    *("metric", "images_seen", "value", "n"),
]
_RECONSTRUCTED = ["arm", "seed", "data", "autoencoder", "metric", "value", "n"]


def headline_figure(
    grid: dict[str, Any], results: pd.DataFrame, speed: Table, target: Path
) -> None:
    """Draw the figure; `target` has no suffix.

    Args:
        grid: `params/study.yaml`.
        results: `results.csv`.
        speed: the table of speed-ups.
        target: path of the figure.
    """
    with rc_context(STYLE):
        if content := _panels(grid, results):
            figure, data = _convergence(content, results, speed)
        else:
            figure, data = _trade_off(table_rows(grid, "evaluate_autoencoder"), results)
        write_csv(data, target.with_suffix(".csv"))
        save(figure, target)


def _panels(grid: dict[str, Any], results: pd.DataFrame) -> dict[str, list[Row]]:
    """What there is to draw of generators; others, and other arms, stand in later figures."""
    rows = table_rows(grid, "evaluate_generator")
    rows = default_schedule(rows) or rows
    own = where(results, "stage", "evaluate_generator")
    own = where(own, "metric", first_present(results, FRECHET))
    return panels(rows, lambda row: row.arm in FIRST and len(row.all_of(own)))


def _convergence(
    content: dict[str, list[Row]], results: pd.DataFrame, speed: Table
) -> tuple[Figure, pd.DataFrame]:
    metric = first_present(results, FRECHET)
    own = where(where(results, "stage", "evaluate_generator"), "metric", metric)
    own = own.dropna(subset=["images_seen"])
    content = dict(islice(content.items(), FOREMOST))
    reached = [
        (row, title)
        for row in _reached(speed)
        for title, some in content.items()
        if dict(some[0].group).items() <= row.items()
    ]
    lines = -(-len(content) // 2)
    heights = [_PANELS[lines]] + [0.6 + 0.2 * len(reached)] * bool(reached)
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.4), layout="constrained")
    # Apart, so that long names below do not indent the panels above.
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    layout = parts[0].add_gridspec(lines, 2)
    for place, (title, some) in enumerate(content.items()):
        alone = place % 2 == 0 and place == len(content) - 1
        axes = parts[0].add_subplot(
            layout[place // 2, :] if alone else layout[place // 2, place % 2]
        )
        seeds = [_curve(axes, row, row.of(own, metric)) for row in some]
        axes.set_title(f"{title} ({sample_size(seeds)})", fontsize=9)
        axes.set_ylabel(label(metric, own["n"]))
        if place // 2 == lines - 1:
            axes.set_xlabel("training images")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(round(value))))
        if axes.lines:
            axes.set_yscale("log")
            log_ticks(axes)
    if reached:
        _speed(parts[1].subplots(), reached)
    drawn = [row for some in content.values() for row in some]
    legend(figure, {row.arm for row in drawn})
    return figure, pd.DataFrame(pd.concat([row.all_of(own) for row in drawn])[_GENERATED])


def _curve(axes: Axes, row: Row, records: pd.DataFrame) -> int:
    """Mean over seeds with its Student-t band; returns the number of seeds."""
    look = arm_look(row.arm)
    steps, means, lows, highs = [], [], [], []
    for seen, same in records.groupby("images_seen"):
        values = [float(value) for value in same["value"]]
        mean = sum(values) / len(values)
        low, high = t_interval(values) or (mean, mean)
        for store, value in zip(
            (steps, means, lows, highs), (float(str(seen)), mean, low, high), strict=True
        ):
            store.append(value)
    if steps:
        axes.plot(steps, means, linewidth=1.8, markersize=5, **look)
        # A lower end at or below zero has no place on a logarithmic axis.
        floor = [max(low, mean / 3) for low, mean in zip(lows, means, strict=True)]
        axes.fill_between(steps, floor, highs, color=look["color"], alpha=0.2, linewidth=0)
    return len(set(records["seed"].dropna()))


def _reached(speed: Table) -> list[dict[str, Any]]:
    """Rows of the table of speed-ups that are shown, as far as they have a factor."""
    return [row for row in _wanted(speed) if isinstance(row["steps"], float)]


def _wanted(speed: Table) -> list[dict[str, Any]]:
    mine = (row for row in speed.numbers if row["arm"] == TREATMENT)
    return [row for row in mine if row["fraction"] == FRACTION]


def _speed(axes: Axes, shown: list[tuple[dict[str, Any], str]]) -> None:
    axes.set_title(f"speed-up of {TREATMENT} at {FRACTION:g} of {CONTROL}'s run", fontsize=9)
    axes.axvline(1, color="black", linewidth=0.8)
    for place, (row, _) in enumerate(shown):
        look: dict[str, Any] = arm_look(row["arm"]) | {"linestyle": "-"}
        low, high = row["steps_low"], row["steps_high"]
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=look["color"], linewidth=2)
        axes.plot([row["steps"]], [place], markersize=7, **look)
        sign = BOUNDS.get(row["steps_bound"], "")
        interval = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
        text = f"{sign}{row['steps']:.3g}×{interval}"
        beside = axes.get_yaxis_transform()
        axes.text(1.01, place, text, transform=beside, va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [name for _, name in shown])
    axes.set(xlabel=f"steps of {CONTROL} over those of {TREATMENT}", ylim=(len(shown) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.margins(x=0.15)


def _trade_off(rows: list[Row], results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    own = where(results, "stage", "evaluate_autoencoder")
    present = set(own["metric"])
    drawn = [name for name in QUALITY if name in present] or ["psnr_db"]
    drawn = list(dict.fromkeys([drawn[0], "psnr_db"]))
    of_arms = panels(rows, lambda row: len(row.of(own, ERROR)))
    content = [(title, some, name) for title, some in of_arms.items() for name in drawn]
    lines = max(1, -(-len(content) // 2))
    figure = Figure(figsize=(_WIDTH, 2.7 * lines + 0.5), layout="constrained")
    places = figure.subplots(lines, min(2, max(1, len(content))), squeeze=False).flatten()
    for axes, (title, some, name) in zip(places, content, strict=False):
        seeds = [_point(axes, row, own, name) for row in some]
        axes.set_title(f"{title} ({sample_size(seeds)})", fontsize=9)
        better = "higher" if name == "psnr_db" else "lower"
        axes.set_xlabel("equivariance error (lower is better)")
        axes.set_ylabel(f"{label(name, where(own, 'metric', name)['n'])} ({better} is better)")
        axes.margins(0.12)
    for axes in places[len(content) :]:
        axes.set_axis_off()
    legend(figure, {row.arm for some in of_arms.values() for row in some})
    return figure, pd.DataFrame(where(own, "metric", ERROR, *drawn)[_RECONSTRUCTED])


def _point(axes: Axes, row: Row, results: pd.DataFrame, metric: str) -> int:
    """An arm's mean with intervals over seeds both ways; returns the number of seeds."""
    both = [row.of(results, name).set_index("seed")["value"] for name in (ERROR, metric)]
    pairs = pd.concat(both, axis=1, join="inner").to_numpy(float)
    if not len(pairs):
        return 0
    middle = pairs.mean(axis=0)
    ends = [t_interval(list(column)) or (m, m) for column, m in zip(pairs.T, middle, strict=True)]
    bars = [np.array([[m - low], [high - m]]) for m, (low, high) in zip(middle, ends, strict=True)]
    look = arm_look(row.arm) | {"linestyle": "none"}
    axes.errorbar(
        *([value] for value in middle), xerr=bars[0], yerr=bars[1], capsize=2, markersize=7, **look
    )
    return len(pairs)


def caption(grid: dict[str, Any], results: pd.DataFrame, speed: Table) -> str:
    """What the figure shows."""
    content = _panels(grid, results)
    if not content:
        return (
            "What equivariance costs: error under turns and scales against quality of "
            "reconstruction, mean over n seeds with Student-t 95 % intervals (one seed has none)."
        )
    more = len(content) > FOREMOST
    some = f" for the first {FOREMOST} of {len(content)} comparisons" * more
    ran = {row.arm for row in table_rows(grid, "evaluate_generator") if len(row.all_of(results))}
    drawn = {row.arm for rows in content.values() for row in rows}
    others = "; other recipes are among the convergence curves" if ran - drawn else ""
    shown = (
        f"Distance against training images{some}, mean over n seeds with Student-t 95 % band (one "
        f"seed has none{others})"
    )
    if _reached(speed):
        return f"{shown}, and how many times sooner {TREATMENT} reaches a distance of {CONTROL}."
    steps = [row["steps"] or "not bounded" for row in _wanted(speed)]
    return f"{shown}. Speed-up: {steps[0] if steps else NOT_RUN}."
