"""What the report's figures share: the look of an arm, panels, legend, reproducible files."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from PIL import Image

from study.report.names import (
    ARMS,
    CONTROL,
    FIRST,
    NOT_IN_GRID,
    NOT_RUN,
    TREATMENT,
    arm_rank,
    count,
)
from study.report.table import Row

Draw = Callable[[Axes, list[Row]], list[int]]
DPI = 150
WIDTH = 9.0
"""Of a figure, in inches."""
_ARMS = 6
"""That a panel of curves can tell apart; the first ones are not to be lost among others."""
_CHARACTERS = 130
"""That fit in a line of the legend; an entry has its name and its line, as wide as 8 of them."""
_TITLE_CHARACTERS = 96
"""That fit in a line of titles across a figure, without what is between panels."""
# Of Okabe and Ito, then of Paul Tol; by an arm's place in `ARMS`, the same in every figure.
_COLOURS = (
    *("#7f7f7f", "#0072B2", "#D55E00", "#56B4E9", "#332288", "#CC79A7", "#E69F00", "#009E73"),
    *("#882255", "#999933", "#44AA99", "#AA4499", "#DDCC77", "#117733", "#661100", "#000000"),
    *("#6699CC", "#CC6677", "#88CCEE", "#EE3377"),
)
_MARKERS = ("s", "o", "^", "D", "v", "P", "X", "*", "<", "p")
_DASHES = ("-.", (0, (5, 1.5)), "-", (0, (1, 1)), (0, (6, 1, 1, 1, 1, 1)))
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.3,
}


def arm_look(arm: str) -> dict[str, Any]:
    """Colour, marker and dashes of an arm: twenty arms differ in colour and, in grey, in marker."""
    rank = arm_rank(arm)[0]
    colour, shape = _COLOURS[rank % len(_COLOURS)], rank % len(_MARKERS)
    # Ten shapes, filled and open; open is the control among the first ten.
    is_open = (rank // len(_MARKERS) % 2 == 1) != (shape == ARMS.index(CONTROL))
    return {
        "color": colour,
        "linestyle": _DASHES[rank % len(_DASHES)],
        "marker": _MARKERS[shape],
        "markerfacecolor": "white" if is_open else colour,
    }


def panels(rows: list[Row], has: Callable[[Row], object]) -> dict[str, list[Row]]:
    """Rows of which there is something to draw by the title of their panel; all if there is none.

    A title is a generator or an autoencoder, with what else differs among those drawn; what is
    left out stands in the tables as not run.
    """
    some = [row for row in rows if has(row)] or rows
    found: dict[str, list[Row]] = {}
    for row in some:
        found.setdefault(row.title(some), []).append(row)
    return found


def divided(content: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Other recipes in a panel of their own, beside control and treatment, where arms are many."""
    found: dict[str, list[Row]] = {}
    for title, rows in content.items():
        others = [row for row in rows if row.arm not in FIRST]
        first = [row for row in rows if row.arm in FIRST]
        if len(rows) <= _ARMS or not others or not first:
            found[title] = rows
            continue
        found[title] = first
        between = [row for row in rows if row.arm in (CONTROL, TREATMENT)]
        found[f"{title}, other recipes"] = [*between, *others]
    return found


def draw_panels(
    content: dict[str, list[Row]],
    draw: Draw | dict[str, Draw],
    extra: Sequence[Line2D] = (),
    x_axis: Callable[[Axes], None] | None = None,
    columns: int | None = None,
) -> Figure:
    """A figure with one panel per entry and one legend for all.

    Args:
        content: rows by panel title.
        draw: draws the rows into their panel, names its vertical axis, returns how many seeds
            it found of each; one for all panels, or one by title.
        extra: further entries of the legend.
        x_axis: names and divides a panel's horizontal axis; None: training steps.
        columns: panels beside each other; None: by their number.
    """
    # One panel is wider than one of two, but no figure has an empty half.
    columns = columns or {0: 1, 1: 1, 2: 2, 4: 2}.get(len(content), 3)
    lines = max(1, -(-len(content) // columns))
    width = 0.7 * WIDTH if columns == 1 else WIDTH
    # Narrow panels are higher than wide: their titles take several lines.
    height = {1: 0.6, 4: 1.1}.get(columns, 0.85) * width * lines / columns + 0.4
    characters = round(_TITLE_CHARACTERS * width / WIDTH / columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        places = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes, (title, rows) in zip(places, content.items(), strict=False):
            action = draw[title] if isinstance(draw, dict) else draw
            _finish(axes, title, characters, action(axes, rows), x_axis or _training_steps)
        for axes in places[len(content) :]:
            axes.set_axis_off()
        if not content:
            figure.text(0.5, 0.5, NOT_IN_GRID, ha="center")
        legend(figure, {row.arm for rows in content.values() for row in rows}, extra)
    return figure


def log_ticks(axes: Axes) -> None:
    """Mark a logarithmic vertical axis, whatever it spans, with numbers that differ."""
    low, high = axes.get_ylim()
    # On less than a decade the usual marks would leave the axis almost bare.
    marks = (1, 2, 5) if high / low > 10 else (1, 2, 3, 5, 7)
    wide = high / low > 3
    axes.yaxis.set_major_locator(LogLocator(subs=marks) if wide else MaxNLocator(5))
    few = FuncFormatter(lambda value, _: f"{value:.3g}")
    axes.yaxis.set_major_formatter(few if wide else ScalarFormatter(useOffset=False))
    axes.yaxis.set_minor_formatter(NullFormatter())


def legend(figure: Figure, arms: Iterable[str], extra: Sequence[Line2D] = ()) -> None:
    """One legend below all panels, arms in their order; none without arms."""
    every = [*(_handle(arm) for arm in sorted(set(arms), key=arm_rank)), *extra]
    if len(every) > len(extra):
        names = [str(line.get_label()) for line in every]
        columns = _columns(names, round(_CHARACTERS * figure.get_figwidth() / WIDTH))
        look = {"loc": "outside lower center", "frameon": False, "columnspacing": 1.5}
        figure.legend(handles=every, ncols=columns, **look)


def _columns(names: list[str], characters: int) -> int:
    """Most columns of a legend that fit, at most 6; each is as wide as its own longest name."""

    def width(columns: int) -> int:
        return sum(8 + max(map(len, some)) for some in np.array_split(names, columns))

    most = min(6, len(names))
    return next((n for n in range(most, 1, -1) if width(n) <= characters), 1)


def save(figure: Figure, target: Path) -> None:
    """Write png and pdf without dates, so that equal figures are equal files."""
    save_png(figure, target.with_suffix(".png"), colours=256)
    dateless = {"CreationDate": None, "Creator": None, "Producer": None}
    figure.savefig(target.with_suffix(".pdf"), metadata=dateless)


def save_png(figure: Figure, target: Path, colours: int | None = None) -> None:
    """Write a png of at most so many colours, which is a third of the size for a drawing.

    By an octree: a median cut would give thin lines the colour of others.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    if colours:
        picture = picture.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    picture.save(target, format="PNG")


def _finish(
    axes: Axes, title: str, characters: int, seeds: list[int], x_axis: Callable[[Axes], None]
) -> None:
    number = f"({sample_size(seeds)})"
    if len(f"{title} {number}") <= characters:
        shown = f"{title} {number}"
    else:
        shown = f"{fill(title, characters, break_on_hyphens=False)}\n{number}"
    axes.set_title(shown, fontsize=10)
    x_axis(axes)
    if not any(seeds):
        axes.set(xticks=[], yticks=[])


def sample_size(seeds: Iterable[int]) -> str:
    """How many seeds a panel shows, where its arms differ the least and the most."""
    ran = [number for number in seeds if number]
    if not ran:
        return NOT_RUN
    least, most = min(ran), max(ran)
    return f"n = {least}" if least == most else f"n = {least} to {most}"


def _training_steps(axes: Axes) -> None:
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(round(value))))


def _handle(arm: str) -> Line2D:
    return Line2D([], [], label=arm, linewidth=2, markersize=5, **arm_look(arm))
