"""Figure of all arms of a generator: where its samples end, and what goes with that of latents."""

from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from study.report.figures import STYLE, WIDTH, arm_look, panels, sample_size, save
from study.report.names import CONTROL, INTRINSIC, label
from study.report.results import where, write_csv
from study.report.table import Row, default_schedule, table_rows
from study.report.tables import checkpoint, measures

LEAST = 3
"""Arms of which the figure says more than the curves do."""
LATENTS = ("psnr_db", "equivariance_error", "latent_high_frequency_share", INTRINSIC)
"""Of the autoencoder, below the distances; of the intrinsic dimensions the one of most images."""
_COLUMNS = 4
# That fit above a panel.
_CHARACTERS = 24
_DATA = ["data", "autoencoder", "arm", "scaling", "generator", "seed", "metric", "value", "n"]


def compared_arms(grid: dict[str, Any], results: pd.DataFrame) -> dict[str, list[Row]]:
    """Rows that ran, by generator, of the default schedule and where arms are `LEAST` or more."""
    own = where(results, "stage", "evaluate_generator")
    ran = [row for row in table_rows(grid, "evaluate_generator") if len(row.all_of(own))]
    content = panels(default_schedule(ran), lambda row: True)
    return {title: rows for title, rows in content.items() if len(rows) >= LEAST}


def arms_figure(grid: dict[str, Any], results: pd.DataFrame, target: Path) -> None:
    """Draw the figure, arms in the order of their distance; `target` has no suffix.

    Args:
        grid: `params/study.yaml`.
        results: `results.csv`.
        target: path of the figure.
    """
    content = compared_arms(grid, results)
    data = _data([row for rows in content.values() for row in rows], results)
    write_csv(data, target.with_suffix(".csv"))
    metrics = list(dict.fromkeys(data["metric"]))
    lines = -(-len(metrics) // _COLUMNS)
    heights = [lines * (0.17 * len(rows) + 0.8) + 0.3 for rows in content.values()] or [1.0]
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        if not content:
            figure.text(0.5, 0.5, f"fewer than {LEAST} arms ran of each generator", ha="center")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, (title, rows) in zip(parts, content.items(), strict=False):
            of_arms = {row.arm: row.all_of(data) for row in rows}
            seeds = sample_size(len(set(records["seed"])) for records in of_arms.values())
            part.suptitle(f"{title} ({seeds})", fontsize=10)
            _panels(part, of_arms, metrics)
        save(figure, target)


def _data(rows: list[Row], results: pd.DataFrame) -> pd.DataFrame:
    """Each seed's last value of every measure shown, with the choices of the row."""
    own = where(results, "stage", "evaluate_generator")
    latents = where(results, "stage", "evaluate_autoencoder")
    found = [pd.DataFrame(columns=_DATA)]
    for row in rows:
        of_autoencoder = {key: row.choices[key] for key in ("data", "autoencoder", "arm")}
        same = Row(of_autoencoder, row.seeds)
        seeds = row.all_of(own)["seed"].unique()
        every = [checkpoint(row.of(own, metric), -1) for metric in measures(own)]
        every += [same.of(latents, metric) for metric in _of_latents(latents)]
        # Of the autoencoder, too, only the seeds of which there is a generator.
        every = [where(records, "seed", *seeds) for records in every]
        found += [records.assign(**row.choices) for records in every if len(records)]
    return pd.DataFrame(pd.concat(found) if len(found) > 1 else found[0], columns=_DATA)


def _panels(part: SubFigure, arms: dict[str, pd.DataFrame], metrics: list[str]) -> None:
    found = {
        metric: {arm: where(records, "metric", metric) for arm, records in arms.items()}
        for metric in metrics
    }
    first = {arm: fmean(records["value"]) for arm, records in found[metrics[0]].items()}
    order = sorted(arms, key=lambda arm: first[arm])
    lines = -(-len(metrics) // _COLUMNS)
    places = part.subplots(lines, _COLUMNS, sharey=True, squeeze=False).flatten()
    for axes, (metric, of_arms) in zip(places, found.items(), strict=False):
        for place, arm in enumerate(order):
            _draw(axes, place, arm, of_arms[arm]["value"].tolist())
        name = label(metric, pd.concat(of_arms.values())["n"])
        axes.set_title(fill(name, _CHARACTERS), fontsize=8)
        axes.tick_params(labelsize=8)
        axes.margins(x=0.1)
    for axes in places[len(metrics) :]:
        axes.set_axis_off()
    places[0].set_yticks(range(len(order)), order)
    places[0].set_ylim(len(order) - 0.5, -0.5)


def _draw(axes: Axes, place: int, arm: str, values: list[float]) -> None:
    if not values:
        return
    look: dict[str, Any] = arm_look(arm) | {"linestyle": "none"}
    axes.plot(values, [place] * len(values), color=look["color"], marker="|", linestyle="none")
    axes.plot([fmean(values)], [place], markersize=6, **look)
    if arm == CONTROL:
        axes.axvline(fmean(values), color=look["color"], linewidth=0.8, linestyle=":")


def _of_latents(latents: pd.DataFrame) -> list[str]:
    present = set(latents["metric"])
    sizes = [int(m.removeprefix(INTRINSIC)) for m in present if m.startswith(INTRINSIC)]
    names = (f"{m}{max(sizes, default=0)}" if m == INTRINSIC else m for m in LATENTS)
    return [name for name in names if name in present]
