"""Figure of the power spectra of latents and images."""

from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from study.report.figures import STYLE, WIDTH, arm_look, divided, draw_panels, panels, save
from study.report.results import instances, where, write_csv
from study.report.table import Row, table_rows

STAGE = "evaluate_autoencoder"
_IMAGES: dict[str, Any] = {"color": "grey", "linestyle": "--", "linewidth": 1.2}
_COLUMNS = ["data", "autoencoder", "arm", "seed", "metric", "frequency", "power"]


def spectra(grid: dict[str, Any], root: Path, target: Path) -> None:
    """Power against frequency, one panel per autoencoder; `target` has no suffix.

    Args:
        grid: `params/study.yaml`.
        root: folder `reports/<profile>/metrics`.
        target: path of the figure.
    """
    curves = _curves(grid, root)
    write_csv(curves, target.with_suffix(".csv"))

    def draw(axes: Axes, rows: list[Row]) -> list[int]:
        found = [(row, row.of(curves, "latents")) for row in rows]
        for row, own in found:
            if len(own):
                axes.plot(*_mean(own), linewidth=1.5, markersize=3.5, **arm_look(row.arm))
        images = pd.concat([row.of(curves, "images") for row in rows])
        if len(images):
            # Images reach lower; what only they have would take most of the panel.
            lowest = min(own["frequency"].min() for _, own in found if len(own))
            images = pd.DataFrame(images[images["frequency"] > 0.7 * lowest])
            axes.plot(*_mean(images), **_IMAGES)
            axes.set(xscale="log", yscale="log")
        axes.set_ylabel("power")
        return [len(set(own["seed"])) for _, own in found]

    extra = [Line2D([], [], label="images", **_IMAGES)]
    content = panels(table_rows(grid, STAGE), lambda row: len(row.of(curves, "latents")))
    save(draw_panels(divided(content), draw, extra, _frequencies), target)


def spectrum_figure(curves: pd.DataFrame, target: Path) -> None:
    """The same for one autoencoder without arms; `target` has no suffix.

    Args:
        curves: with columns set (latents or images), frequency, power.
        target: path of the figure.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(0.7 * WIDTH, 4), layout="constrained")
        axes = figure.subplots()
        looks = {"latents": {"marker": "o", "linewidth": 1.5}, "images": _IMAGES}
        for name, look in looks.items():
            axes.plot(*_mean(where(curves, "set", name)), label=name, **look)
        axes.set(xscale="log", yscale="log", ylabel="power")
        _frequencies(axes)
        axes.legend(frameon=False)
        save(figure, target)


def _mean(curves: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Frequency, and the mean of power over seeds and, for images, arms."""
    powers: dict[float, list[float]] = {}
    for frequency, power in zip(curves["frequency"], curves["power"], strict=True):
        powers.setdefault(frequency, []).append(power)
    return list(powers), [fmean(values) for values in powers.values()]


def _frequencies(axes: Axes) -> None:
    axes.set_xlabel("frequency\n[cycles per latent position or pixel]")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _curves(grid: dict[str, Any], root: Path) -> pd.DataFrame:
    frames = []
    for stage, instance, cell in instances(grid):
        path = root / STAGE / f"{instance}-spectra.csv"
        if stage == STAGE and path.is_file():
            choices = {name: getattr(cell, name) for name in _COLUMNS[:4]}
            frames.append(pd.read_csv(path).rename(columns={"set": "metric"}).assign(**choices))
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_COLUMNS)
    return where(table, "metric", "latents", "images").reindex(columns=_COLUMNS)
