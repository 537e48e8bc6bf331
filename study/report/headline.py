"""Figure of a report's first screen: convergence and speed-up, or what equivariance costs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from study.report.figures import STYLE, WIDTH, arm_look, legend, panels, save
from study.report.names import FRECHET, NOT_RUN, count, first_present, label
from study.report.results import where, write_csv
from study.report.table import Row, Table, table_rows
from study.statistics import t_interval

ERROR = "equivariance_error"
QUALITY = ("rfid", "rfd_inception", "rfd_in_domain", "psnr_db")
"""Of reconstructions; the first that was measured is drawn against the error."""
FRACTION = 0.5
"""Of the control's run, whose distance the speed-up shown is about."""
_GENERATED = ["arm", "seed", "generator", "autoencoder", "metric", "images_seen", "value", "n"]
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
    rows = table_rows(grid, "evaluate_generator")
    with rc_context(STYLE):
        if rows:
            figure, data = _convergence(rows, results, speed)
        else:
            figure, data = _trade_off(table_rows(grid, "evaluate_autoencoder"), results)
        write_csv(data, target.with_suffix(".csv"))
        save(figure, target)


def _convergence(
    rows: list[Row], results: pd.DataFrame, speed: Table
) -> tuple[Figure, pd.DataFrame]:
    metric = first_present(results, FRECHET)
    own = where(where(results, "stage", "evaluate_generator"), "metric", metric)
    own = own.dropna(subset=["images_seen"])
    content = panels(rows)
    columns = 2 if len(content) < 4 else 3
    lines = -(-(len(content) + 1) // columns)
    figure = Figure(figsize=(WIDTH, 6.0 * lines / columns + 0.5), layout="constrained")
    places = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, (title, some) in zip(places, content.items(), strict=False):
        seeds = max(_curve(axes, row, row.of(own, metric)) for row in some)
        axes.set_title(_titled(title, seeds), fontsize=10)
        axes.set(xlabel="training images", ylabel=label(metric, own["n"]))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(round(value))))
        if axes.lines:
            _decades(axes)
    _speed(places[len(content)], speed)
    for axes in places[len(content) + 1 :]:
        axes.set_axis_off()
    legend(figure, {row.arm for row in rows})
    return figure, pd.DataFrame(own[_GENERATED])


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


def _decades(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high / low > 3 else MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _speed(axes: Axes, speed: Table) -> None:
    wanted = [row for row in speed.numbers if row["fraction"] == FRACTION]
    shown = [row for row in wanted if isinstance(row["steps"], float)]
    axes.set_title(f"speed-up at {FRACTION:g} of the control's run", fontsize=10)
    if not shown:
        reasons = [row["steps"] or "not bounded" for row in wanted]
        why = str(reasons[0]) if reasons else NOT_RUN
        axes.text(0.5, 0.5, why, ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    axes.axvline(1, color="black", linewidth=0.8)
    for place, row in enumerate(shown):
        look: dict[str, Any] = arm_look(row["arm"]) | {"linestyle": "-"}
        low, high = row["steps_low"], row["steps_high"]
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=look["color"], linewidth=2)
        axes.plot([row["steps"]], [place], markersize=7, **look)
        sign = {"at least": " ≥", "at most": " ≤"}.get(row["steps_bound"], "")
        axes.annotate(
            f"{sign}{row['steps']:.3g}×",
            (row["steps"], place),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    names = [f"{row['generator']}, {row['arm']}" for row in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.set(xlabel="control's steps over the arm's", ylim=(len(shown) - 0.4, -0.8))
    axes.margins(x=0.15)


def _trade_off(rows: list[Row], results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    own = where(results, "stage", "evaluate_autoencoder")
    present = set(own["metric"])
    drawn = [name for name in QUALITY if name in present] or ["psnr_db"]
    drawn = list(dict.fromkeys([drawn[0], "psnr_db"]))
    content = [(title, some, name) for title, some in panels(rows).items() for name in drawn]
    lines = max(1, -(-len(content) // 2))
    figure = Figure(figsize=(WIDTH, 3.6 * lines + 0.5), layout="constrained")
    places = figure.subplots(lines, min(2, max(1, len(content))), squeeze=False).flatten()
    for axes, (title, some, name) in zip(places, content, strict=False):
        seeds = max((_point(axes, row, own, name) for row in some), default=0)
        axes.set_title(_titled(title, seeds), fontsize=10)
        better = "higher" if name == "psnr_db" else "lower"
        axes.set_xlabel("equivariance error (lower is better)")
        axes.set_ylabel(f"{label(name, where(own, 'metric', name)['n'])} ({better} is better)")
    for axes in places[len(content) :]:
        axes.set_axis_off()
    legend(figure, {row.arm for row in rows})
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
    axes.annotate(
        row.arm, tuple(middle), xytext=(6, 4), textcoords="offset points", fontsize=7, color="#444"
    )
    return len(pairs)


def _titled(title: str, seeds: int) -> str:
    return f"{title} (n = {seeds} seed{'s' if seeds > 1 else ''})" if seeds else f"{title}: not run"


def caption(grid: dict[str, Any]) -> str:
    """What the figure shows."""
    if table_rows(grid, "evaluate_generator"):
        return (
            "Distance against training images, mean over seeds with Student-t 95 % band (one seed "
            "has none), and the factor by which an arm reaches the control's distance sooner."
        )
    return (
        "What equivariance costs: error under turns and scales against quality of reconstruction, "
        "mean over seeds with Student-t 95 % intervals (one seed has none)."
    )
