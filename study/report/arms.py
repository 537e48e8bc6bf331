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
from study.report.names import CONTROL, FRECHET, INTRINSIC, first_present, label
from study.report.results import where, write_csv
from study.report.table import Row, default_schedule, table_rows
from study.report.tables import checkpoint, gain_of, measured, measures, paired

LEAST = 3
"""Arms of which the figure says more than the curves do."""
OF_AUTOENCODERS = ("psnr_db", "equivariance_error", "latent_high_frequency_share", INTRINSIC)
"""Measures below the distances."""
_COLUMNS = 4
# That fit above a panel.
_CHARACTERS = 24
_DATA = ["data", "autoencoder", "arm", "scaling", "generator", "seed", "metric", "value", "n"]


def compared_arms(grid: dict[str, Any], results: pd.DataFrame) -> dict[str, list[Row]]:
    """Rows that ran, by generator, of the default schedule and where arms are `LEAST` or more."""
    own = where(results, "stage", "evaluate_generator")
    main = first_present(own, FRECHET)
    ran = [row for row in table_rows(grid, "evaluate_generator") if len(row.of(own, main))]
    content = panels(default_schedule(ran), lambda row: True)
    return {title: rows for title, rows in content.items() if len(rows) >= LEAST}


def arms_figure(grid: dict[str, Any], results: pd.DataFrame, target: Path) -> None:
    """Draw the figure, arms in the order of their main distance; `target` has no suffix.

    Args:
        grid: `params/study.yaml`.
        results: `results.csv`.
        target: path of the figure.
    """
    own = where(results, "stage", "evaluate_generator")
    latents = where(results, "stage", "evaluate_autoencoder")
    lines = [measures(own), measured(OF_AUTOENCODERS, latents)]
    content = compared_arms(grid, results)
    found = [_data(row, own, latents, lines) for rows in content.values() for row in rows]
    data = pd.concat(found) if found else pd.DataFrame()
    data = data.reindex(columns=_DATA)
    write_csv(data, target.with_suffix(".csv"))
    heights = [2 * (0.17 * len(rows) + 0.8) + 0.3 for rows in content.values()] or [1.0]
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        if not content:
            figure.text(0.5, 0.5, f"fewer than {LEAST} arms ran of each generator", ha="center")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, (title, rows) in zip(parts, content.items(), strict=False):
            _panels(part, title, {row.arm: row.all_of(data) for row in rows}, lines)
        save(figure, target)


def _data(
    row: Row, own: pd.DataFrame, latents: pd.DataFrame, lines: list[list[str]]
) -> pd.DataFrame:
    """Each seed's last value of every measure shown, with the choices of the row."""
    of_generator, of_autoencoder = lines
    keys = ("data", "autoencoder", "arm")
    same = Row({key: row.choices[key] for key in keys}, row.seeds)
    every = [checkpoint(row.of(own, metric), -1) for metric in of_generator]
    every += [same.of(latents, metric) for metric in of_autoencoder]
    # Of the autoencoder, too, only the seeds of which there is a generator.
    seeds = row.all_of(own)["seed"].unique()
    return where(pd.concat(every), "seed", *seeds).assign(**row.choices)


def _panels(
    part: SubFigure, title: str, arms: dict[str, pd.DataFrame], lines: list[list[str]]
) -> None:
    seeds = {arm: len(set(records["seed"])) for arm, records in arms.items()}
    part.suptitle(f"{title} ({sample_size(seeds.values())})", fontsize=10)
    order = _ordered({arm: where(all_, "metric", lines[0][0]) for arm, all_ in arms.items()})
    places = part.subplots(2, _COLUMNS, sharey=True, squeeze=False)
    for row, metrics in zip(places, lines, strict=True):
        for axes, metric in zip(row, metrics, strict=False):
            found = {arm: where(arms[arm], "metric", metric) for arm in order}
            for place, (arm, records) in enumerate(found.items()):
                _draw(axes, place, arm, records["value"].tolist())
            name = label(metric, pd.concat(found.values())["n"])
            axes.set_title(fill(name, _CHARACTERS), fontsize=8)
            axes.tick_params(labelsize=8)
            axes.margins(x=0.1)
        for axes in row[len(metrics) :]:
            axes.set_axis_off()
    differ = len(set(seeds.values())) > 1
    names = [f"{arm} ({seeds[arm]})" if differ else arm for arm in order]
    places[0, 0].set_yticks(range(len(order)), names)
    places[0, 0].set_ylim(len(order) - 0.5, -0.5)


def _ordered(distances: dict[str, pd.DataFrame]) -> list[str]:
    """Arms from the nearest, by the gain over the control, so that it is of the same seeds.

    Arms that have no seed in common with it come last; where there is no control all do.
    """

    def rank(arm: str) -> tuple[bool, float]:
        control = distances.get(CONTROL)
        gain = None if control is None else gain_of(paired(distances[arm], control))
        return gain is None, fmean(distances[arm]["value"]) if gain is None else -gain.value

    return sorted(distances, key=rank)


def _draw(axes: Axes, place: int, arm: str, values: list[float]) -> None:
    if not values:
        return
    look: dict[str, Any] = arm_look(arm) | {"linestyle": "none"}
    axes.plot(values, [place] * len(values), color=look["color"], marker="|", linestyle="none")
    axes.plot([fmean(values)], [place], markersize=6, **look)
    if arm == CONTROL:
        axes.axvline(fmean(values), color=look["color"], linewidth=0.8, linestyle=":")
