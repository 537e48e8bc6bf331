"""How fine-tuning went: held-out measurements on the way, whether they came to rest, the cost."""

from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from study.report.figures import arm_look, draw_panels, panels, save
from study.report.names import CONTROL, NOT_RUN, PRETRAINED
from study.report.results import instances, where, write_csv
from study.report.table import Row, Table, minutes_text, table_rows

STAGE = "finetune_autoencoder"
FOLLOWED = {
    "held_out_reconstruction": "L1 + perceptual, held-out",
    "equivariance_error": "equivariance error, held-out",
    "latent_std": "latent std",
    "latent_beyond_3": "share of latents beyond ±3",
}
"""Columns of the curves that are drawn, and what they are."""
AT_REST = {"held_out_reconstruction": 0.01, "equivariance_error": 0.03}
"""Change over the last fifth of the steps below which a measurement has come to rest."""
_CHANGE = "last_fifth_change_"
_CHOICES = ["data", "autoencoder", "arm", "seed"]
_COLUMNS = [*_CHOICES, "metric", "step", "value"]


def fine_tuning_table(grid: dict[str, Any], results: pd.DataFrame, costs: pd.DataFrame) -> Table:
    """Change over the last fifth, time and operations of each arm."""
    results, costs = where(results, "stage", STAGE), where(costs, "stage", STAGE)
    table = Table("fine_tuning")
    rows = [row for row in table_rows(grid, STAGE) if row.arm != PRETRAINED]
    work = {id(row): _mean(_of(grid, costs, row), "gflop_per_image") for row in rows}
    for row in rows:
        control = next((r for r in rows if r.arm == CONTROL and r.group == row.group), row)
        ran = len(row.of(results, f"{_CHANGE}equivariance_error"))
        seconds = _mean(_of(grid, costs, row), "training_seconds")
        ours, theirs = work[id(row)], work[id(control)]
        share = ours / theirs if ours and theirs else None
        table.add(row.titles(rows, ran), {**row.choices, "seeds_run": ran})
        for metric, limit in AT_REST.items():
            changes = row.of(results, _CHANGE + metric)["value"].tolist()
            _put_change(table, metric, max(changes, default=None), limit)
        minutes = seconds / 60 if seconds else None
        table.shown[-1] |= {
            "Training [min]": minutes_text(minutes) if minutes else NOT_RUN,
            "GFLOP per image": f"{ours:.3g}" if ours else NOT_RUN,
            f"Relative to {CONTROL}": f"{share:.2f}" if share else NOT_RUN,
        }
        table.numbers[-1] |= {"minutes": minutes, "gflop_per_image": ours, "relative_work": share}
    table.notes = [
        "Change: largest less smallest value over the last fifth of the steps, over the last; with "
        "several seeds the largest change. At rest: below "
        + ", ".join(
            f"{limit:.0%} ({metric.replace('_', ' ')})" for metric, limit in AT_REST.items()
        )
        + ". GFLOP: forward and backward of the autoencoder alone, mean over the branches drawn.",
    ]
    return table


def fine_tuning_figure(grid: dict[str, Any], root: Path, target: Path) -> None:
    """Held-out measurements against training step; `target` has no suffix.

    Args:
        grid: `params/study.yaml`.
        root: folder `reports/<profile>/metrics`.
        target: path of the figure.
    """
    curves = _curves(grid, root)
    write_csv(curves, target.with_suffix(".csv"))
    rows = [row for row in table_rows(grid, STAGE) if row.arm != PRETRAINED]
    own = panels(rows, lambda row: len(row.all_of(curves)))
    drawn = {f"{title}: {FOLLOWED[m]}": (rows, m) for title, rows in own.items() for m in FOLLOWED}
    content = {title: rows for title, (rows, _) in drawn.items()}
    draw = {title: partial(_draw, curves, metric) for title, (_, metric) in drawn.items()}
    # Of several autoencoders each has a line of panels.
    save(draw_panels(content, draw, columns=len(FOLLOWED) if len(own) > 1 else None), target)


def _draw(curves: pd.DataFrame, metric: str, axes: Axes, rows: list[Row]) -> list[int]:
    seeds = []
    for row in rows:
        lines = [line for _, line in row.of(curves, metric).groupby("seed")]
        for line in lines:
            axes.plot(line["step"], line["value"], linewidth=1.3, markersize=3, **arm_look(row.arm))
        seeds.append(len(lines))
    return seeds


def _curves(grid: dict[str, Any], root: Path) -> pd.DataFrame:
    frames = []
    for stage, instance, cell in instances(grid):
        path = root / stage / f"{instance}.csv"
        if stage == STAGE and path.is_file():
            curve = pd.read_csv(path)
            known = [name for name in FOLLOWED if name in curve]
            long = curve.melt("step", known, "metric", "value").dropna(subset=["value"])
            frames.append(long.assign(**{name: getattr(cell, name) for name in _CHOICES}))
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_COLUMNS)
    return table.reindex(columns=_COLUMNS)


def _of(grid: dict[str, Any], costs: pd.DataFrame, row: Row) -> pd.DataFrame:
    """The row's costs; they are kept by instance."""
    mine = [
        instance
        for stage, instance, cell in instances(grid)
        if stage == STAGE and all(getattr(cell, k) == v for k, v in row.choices.items())
    ]
    return where(costs, "instance", *mine)


def _mean(costs: pd.DataFrame, column: str) -> float | None:
    values = costs[column].dropna().tolist() if column in costs else []
    return fmean(values) if values else None


def _put_change(table: Table, metric: str, change: float | None, limit: float) -> None:
    title = f"Change, {metric.replace('_', ' ')}"
    verdict = "" if change is None or change < limit else " (not at rest)"
    table.shown[-1][title] = NOT_RUN if change is None else f"{100 * change:.2g} %{verdict}"
    table.numbers[-1][_CHANGE + metric] = change
