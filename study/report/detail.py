"""Figure of the power of reconstructions over that of the images, by frequency.

Power is not agreement: what a decoder makes up counts as what it keeps.
"""

from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from PIL import Image

from study.report.figures import arm_look, divided, draw_panels, log_ticks, panels, save
from study.report.pictures import finished
from study.report.results import instances, where, write_csv
from study.report.table import Row, table_rows

STAGE = "evaluate_autoencoder"
RINGS = 16
"""Of equal width up to 0.5 cycles a pixel, and as many more as the corners beyond take; fewer where
images are too small for them."""
_CHOICES = ["data", "autoencoder", "arm", "seed"]
_COLUMNS = [*_CHOICES, "frequency", "images", "reconstructions", "ratio"]


def detail(grid: dict[str, Any], root: Path, target: Path) -> None:
    """Ratio of powers against frequency, one panel per autoencoder; `target` has no suffix.

    Of the images and reconstructions in the stage's pictures, the same images for all arms.

    Args:
        grid: `params/study.yaml`.
        root: folder `reports/<profile>/metrics`.
        target: path of the figure.
    """
    frames = []
    for stage, instance, cell in instances(grid):
        path = root / STAGE / f"{instance}.png"
        if stage == STAGE and finished(path):
            choices = {name: getattr(cell, name) for name in _CHOICES}
            frames.append(_compared(path).assign(**choices))
    curves = pd.concat(frames) if frames else pd.DataFrame(columns=_COLUMNS)
    write_csv(curves.reindex(columns=_COLUMNS), target.with_suffix(".csv"))

    def draw(axes: Axes, rows: list[Row]) -> list[int]:
        found = [(row, row.all_of(curves)) for row in rows]
        for row, own in found:
            rings = dict.fromkeys(own["frequency"])
            ratios = [fmean(where(own, "frequency", ring)["ratio"]) for ring in rings]
            if ratios:
                axes.plot(list(rings), ratios, linewidth=1.5, markersize=3.5, **arm_look(row.arm))
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.set_ylabel("power over that of the images")
        if any(len(own) for _, own in found):
            axes.set_yscale("log")
            log_ticks(axes)
        return [len(set(own["seed"])) for _, own in found]

    content = panels(table_rows(grid, STAGE), lambda row: len(row.all_of(curves)))
    save(draw_panels(divided(content), draw, x_axis=_frequencies), target)


def power(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power by rings of frequency, mean over images, channels and the ring.

    Args:
        images: N H W C; each is freed of its mean and tapered by a Hann window, since its opposite
            borders do not fit.

    Returns:
        Middle of each ring in cycles a pixel, and its power.
    """
    height, width = images.shape[1:3]
    window = np.outer(np.hanning(height), np.hanning(width))[..., None]
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    spectrum = np.abs(np.fft.fft2(centred * window, axes=(1, 2))) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"))
    count = min(RINGS, min(height, width) // 4)
    ring = (radius * 2 * count).astype(int)
    mean = spectrum.mean(axis=(0, 3))
    powers = [mean[ring == number].mean() for number in range(ring.max() + 1)]
    return (np.arange(len(powers)) + 0.5) / (2 * count), np.array(powers)


def _compared(path: Path) -> pd.DataFrame:
    """Powers of a picture's first line, images, and of its second, what became of them."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=float)
    side = pixels.shape[0] // 2
    tiles = pixels.reshape(2, side, -1, side, 3).swapaxes(1, 2)
    (frequency, images), (_, decoded) = (power(line) for line in tiles)
    ratio = decoded / images
    columns = {"frequency": frequency, "images": images, "reconstructions": decoded}
    return pd.DataFrame(columns | {"ratio": ratio})


def _frequencies(axes: Axes) -> None:
    axes.set_xlabel("frequency [cycles per pixel]")
    axes.xaxis.set_major_locator(MaxNLocator(5))
