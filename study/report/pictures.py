"""Figure that places the stages' pictures together, arms side by side: samples."""

import json
from math import isqrt
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from study.report.figures import DPI, panels, save_png
from study.report.names import NOT_IN_GRID, NOT_RUN
from study.report.results import instances
from study.report.table import Row, table_rows, without_schedules

# Pictures of a line; those of one generator stand on one where they fit.
_COLUMNS = 4
# Pixels: between pictures, for a title, and the side of an absent picture.
_GAP, _TITLE, _ABSENT = 12, 64, 256
# That fit in a line of a title.
_CHARACTERS = 28
# Small pictures are enlarged by whole factors to about this width, so that no pixel is blended.
_WIDTH = 320
# Of all pictures together: more would be a file of tens of megabytes.
_PIXELS = 1_500_000

# A title, and the picture or why there is none.
Shown = tuple[str, np.ndarray | str]


def pictures(grid: dict[str, Any], stage: str, root: Path, target: Path) -> None:
    """Place grids of samples in a grid, the arms of a generator side by side; the first seed's.

    Of many or large ones the upper left corner is shown.

    Args:
        grid: `params/study.yaml`.
        stage: the stage that made the pictures.
        root: folder `reports/<profile>/metrics`.
        target: png file to write.
    """

    def file(row: Row) -> Path:
        return root / stage / f"{instance_of(grid, stage, row)}.png"

    rows = without_schedules(table_rows(grid, stage))
    content = panels(rows, lambda row: finished(file(row)))
    count = sum(len(rows) for rows in content.values())
    lines: list[list[Shown]] = []
    for title, rows in content.items():
        name, side = fill(title, _CHARACTERS), isqrt(_PIXELS // count)
        own = [(f"{name}\n{row.arm}", _picture(file(row), side)) for row in rows]
        if lines and len(lines[-1]) + len(own) <= _COLUMNS:
            lines[-1] += own
        else:
            lines += [own[i : i + _COLUMNS] for i in range(0, len(own), _COLUMNS)]
    save_png(_compose(lines or [[("", NOT_IN_GRID)]]), target)


def instance_of(grid: dict[str, Any], stage: str, row: Row) -> str:
    """The first instance of a row."""
    return next(
        instance
        for name, instance, cell in instances(grid)
        if name == stage and all(getattr(cell, key) == row.choices[key] for key in row.choices)
    )


def finished(picture: Path) -> bool:
    """Whether the cell that made the picture ended, which its metrics file says."""
    return picture.is_file() and picture.with_suffix(".json").is_file()


def _picture(path: Path, side: int) -> np.ndarray | str:
    """A grid's whole samples within so many pixels, two by two at least; or why there is none."""
    if not finished(path):
        return NOT_RUN
    image = imread(path)
    parameters = json.loads(path.with_suffix(".json").read_text())["parameters"]
    sample = image.shape[1] // isqrt(parameters["evaluate_generator"]["grid_images"])
    kept = max(2, side // sample) * sample
    image = image[:kept, :kept]
    factor = max(1, round(_WIDTH / image.shape[1]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _compose(cells: list[list[Shown]]) -> Figure:
    images = [image for row in cells for _, image in row if not isinstance(image, str)]
    height, width = (max([i.shape[axis] for i in images], default=_ABSENT) for axis in (0, 1))
    columns = max(map(len, cells))
    total = _GAP + (width + _GAP) * columns, _GAP + (height + _TITLE + _GAP) * len(cells)
    figure = Figure(figsize=(total[0] / DPI, total[1] / DPI), dpi=DPI)
    for line, row in enumerate(cells):
        top = _GAP + line * (height + _TITLE + _GAP)
        for column, (title, image) in enumerate(row):
            left = _GAP + column * (width + _GAP)
            _place(figure, title, image, (left, top, width, height), total)
    return figure


def _place(
    figure: Figure,
    title: str,
    image: np.ndarray | str,
    box: tuple[int, int, int, int],
    total: tuple[int, int],
) -> None:
    left, top, width, height = box
    middle = (left + width / 2) / total[0]
    centre = 1 - (top + _TITLE / 2) / total[1]
    figure.text(middle, centre, title, ha="center", va="center", fontsize=8)
    shown = (height, width) if isinstance(image, str) else image.shape[:2]
    bottom = total[1] - top - _TITLE - shown[0]
    place = (left / total[0], bottom / total[1], shown[1] / total[0], shown[0] / total[1])
    axes = figure.add_axes(place)
    axes.set_axis_off()
    if isinstance(image, str):
        axes.text(0.5, 0.5, image, ha="center", va="center", transform=axes.transAxes)
    else:
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
