"""Figures that compare arms picture by picture: a row per arm, in the rows' names what they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from study.report.figures import DPI, panels, save_png
from study.report.names import NOT_IN_GRID, NOT_RUN
from study.report.pictures import instance_of
from study.report.table import Row, table_rows

STAGE = "evaluate_autoencoder"
# Pixels: the names of rows, a title or the names of columns, between rows and blocks, a least tile.
_NAMES, _TITLE, _GAP, _TILE = 210, 28, 4, 96
# Pictures of a block that a reader can take in, and that keep its file small.
_TILES, _LEAST = 44, 4


@dataclass(frozen=True)
class Strip:
    """How a picture of `evaluate_autoencoder` is laid out, in tiles, and what of it is shown."""

    name: str
    """Which of the stage's pictures, as given to `Run.picture`."""
    columns: tuple[str, ...]
    """Names of its columns, which repeat; empty where each is another image."""
    shared: str
    """Name of its first row where all arms have the same one; else every row is an arm's."""


STRIPS = {
    "reconstructions": Strip("", (), "images"),
    "transforms": Strip("transforms", ("90°", "180°", "×0.5", "×0.25"), "images"),
    "latents": Strip("latents", ("x", "E(x)", "E(R x)", "R E(x)", "E(S x)", "S E(x)"), ""),
}
"""By the name of the figure."""


def strips(grid: dict[str, Any], root: Path, folder: Path) -> None:
    """Write the figures, a block per autoencoder; of each arm the first seed.

    Args:
        grid: `params/study.yaml`.
        root: folder `reports/<profile>/metrics`.
        folder: where the png files go.
    """

    def ran(row: Row) -> bool:
        return (root / STAGE / f"{instance_of(grid, STAGE, row)}.png").is_file()

    content = panels(table_rows(grid, STAGE), ran)
    # The same images in every block, so that autoencoders can be compared as well.
    arms = max((len({row.arm for row in rows}) for rows in content.values()), default=1)
    for figure, strip in STRIPS.items():
        blocks = {title: _block(grid, root, strip, rows, arms) for title, rows in content.items()}
        save_png(_compose(blocks, strip), folder / f"{figure}.png")


def _block(
    grid: dict[str, Any], root: Path, strip: Strip, rows: list[Row], arms: int
) -> list[tuple[str, np.ndarray | str]]:
    """Rows of a block: its name, and its tiles N S S 3 or why there are none.

    Of a line, as many tiles as a block of so many arms has room for.
    """
    suffix = f"-{strip.name}.png" if strip.name else ".png"
    sheets = {
        row.arm: _tiles(root / STAGE / f"{instance_of(grid, STAGE, row)}{suffix}", strip)
        for row in rows
    }
    found: list[tuple[str, np.ndarray | str]] = []
    for arm, tiles in sheets.items():
        if isinstance(tiles, str):
            found.append((arm, tiles))
        elif strip.shared:
            if not any(name == strip.shared for name, _ in found):
                found.insert(0, (strip.shared, _first(tiles[0], arms + 1, strip)))
            found.append((arm, _first(tiles[1], arms + 1, strip)))
        else:
            lines = tiles[: max(1, _TILES // 3 // arms)]
            found += [(arm if number == 0 else "", line) for number, line in enumerate(lines)]
    return found


def _tiles(path: Path, strip: Strip) -> np.ndarray | str:
    """A picture as tiles, rows by columns by S S 3."""
    if not path.is_file():
        return NOT_RUN
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    side = pixels.shape[0] // 2 if strip.shared else pixels.shape[1] // len(strip.columns)
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    pixels = pixels[: rows * side, : columns * side]
    tiles = pixels.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    factor = max(1, round(_TILE / side))
    # By whole factors, so that no pixel is blended.
    return tiles.repeat(factor, axis=2).repeat(factor, axis=3)


def _first(line: np.ndarray, rows: int, strip: Strip) -> np.ndarray:
    """As many tiles of a line as a block of so many rows has room for."""
    group = len(strip.columns) or 1
    return line[: max(_LEAST, _TILES // rows // group * group)]


def _compose(blocks: dict[str, list[tuple[str, np.ndarray | str]]], strip: Strip) -> Figure:
    shown = [tiles for rows in blocks.values() for _, tiles in rows if not isinstance(tiles, str)]
    side = max([tiles.shape[1] for tiles in shown], default=_TILE)
    count = max([len(tiles) for tiles in shown], default=_LEAST)
    heights = [2 * _TITLE + len(rows) * (side + _GAP) for rows in blocks.values()]
    width, height = _NAMES + count * side + _GAP, max(sum(heights), 4 * _TITLE)
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def write(text: str, x: float, y: float, **look: Any) -> None:
        figure.text(x / width, 1 - y / height, text, va="center", fontsize=8, **look)

    top = 0
    for (title, rows), block in zip(blocks.items(), heights, strict=True):
        write(title, _GAP, top + _TITLE / 2, fontweight="bold")
        for column in range(count if strip.columns else 0):
            name = strip.columns[column % len(strip.columns)]
            write(name, _NAMES + (column + 0.5) * side, top + 1.5 * _TITLE, ha="center")
        for line, (name, tiles) in enumerate(rows):
            start = top + 2 * _TITLE + line * (side + _GAP)
            write(name, _GAP, start + side / 2)
            if isinstance(tiles, str):
                write(tiles, _NAMES, start + side / 2)
                continue
            joined = np.concatenate(list(tiles), axis=1)
            canvas[start : start + joined.shape[0], _NAMES : _NAMES + joined.shape[1]] = joined
        top += block
    if not blocks:
        write(NOT_IN_GRID, width / 2, height / 2, ha="center")
    figure.figimage(canvas, zorder=-1, origin="upper")
    return figure
