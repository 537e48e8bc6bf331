"""What the report's figures share: the look of an arm, panels, legend, reproducible files."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from study.report.names import NOT_IN_GRID, NOT_RUN, arm_rank, count, generator
from study.report.table import Row

Draw = Callable[[Axes, list[Row]], int]
DPI = 150
WIDTH = 9.0
"""Of a figure, in inches."""
_CHARACTERS = 130
"""That fit in a line of the legend; an entry has its name and its line, as wide as 8 of them."""
# Okabe and Ito's palette without yellow; arms keep colour and marker in every figure.
_COLOURS = ("#7f7f7f", "#0072B2", "#D55E00", "#56B4E9", "#009E73", "#CC79A7", "#E69F00")
_MARKERS = ("s", "o", "^", "D", "v", "P", "X", "*", "<", ">")
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.3,
}


def arm_look(arm: str) -> dict[str, Any]:
    """Colour, marker and dashes of an arm: readable without colour, the same in every figure."""
    rank = arm_rank(arm)[0]
    colour = _COLOURS[rank % len(_COLOURS)]
    return {
        "color": colour,
        "linestyle": ("-.", (0, (4, 1)), "-", (0, (1, 1)))[rank % 4],
        "marker": _MARKERS[rank % len(_MARKERS)],
        "markerfacecolor": "white" if arm == "plain" else colour,
    }


def panels(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by the title of their panel: a generator or an autoencoder, with what else differs."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(_title(row, rows), []).append(row)
    return found


def draw_panels(
    content: dict[str, list[Row]],
    draw: Draw | dict[str, Draw],
    extra: Iterable[Line2D] = (),
    x_axis: Callable[[Axes], None] | None = None,
) -> Figure:
    """A figure with one panel per entry and one legend for all.

    Args:
        content: rows by panel title.
        draw: draws the rows into their panel, names its vertical axis, returns the number of
            seeds that it found; one for all panels, or one by title.
        extra: further entries of the legend.
        x_axis: names and divides a panel's horizontal axis; None: training steps.
    """
    columns = 2 if len(content) <= 4 else 3
    lines = max(1, -(-len(content) // columns))
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 0.85 * WIDTH * lines / columns + 0.4), layout="constrained")
        places = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes, (title, rows) in zip(places, content.items(), strict=False):
            action = draw[title] if isinstance(draw, dict) else draw
            _finish(axes, title, action(axes, rows), x_axis or _training_steps)
        for axes in places[len(content) :]:
            axes.set_axis_off()
        if not content:
            figure.text(0.5, 0.5, NOT_IN_GRID, ha="center")
        arms = {row.arm for rows in content.values() for row in rows}
        handles = [_handle(arm) for arm in sorted(arms, key=arm_rank)]
        if handles:
            every = [*handles, *extra]
            columns = _CHARACTERS // (8 + max(len(str(line.get_label())) for line in every))
            figure.legend(
                handles=every, loc="outside lower center", ncols=min(6, columns), frameon=False
            )
    return figure


def save(figure: Figure, target: Path) -> None:
    """Write png and pdf without dates, so that equal figures are equal files."""
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target.with_suffix(".png"), dpi=DPI, metadata={"Software": None})
    dateless = {"CreationDate": None, "Creator": None, "Producer": None}
    figure.savefig(target.with_suffix(".pdf"), metadata=dateless)


def _title(row: Row, rows: list[Row]) -> str:
    name = row.choices.get("generator")
    same = [other for other in rows if other.choices.get("generator") == name]
    differs = [
        row.choices[key]
        for key in ("data", "autoencoder", "scaling")
        if key in row.choices and len({other.choices.get(key) for other in same}) > 1
    ]
    return ", ".join([generator(name), *differs] if name else differs or [_only(row)])


def _only(row: Row) -> str:
    return row.choices.get("autoencoder", row.arm)


def _finish(axes: Axes, title: str, seeds: int, x_axis: Callable[[Axes], None]) -> None:
    number = f"n = {seeds} seed{'s' if seeds > 1 else ''}" if seeds else NOT_RUN
    axes.set_title(f"{title} ({number})", fontsize=10)
    x_axis(axes)
    if not seeds:
        axes.set(xticks=[], yticks=[])


def _training_steps(axes: Axes) -> None:
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(round(value))))


def _handle(arm: str) -> Line2D:
    return Line2D([], [], label=arm, linewidth=2, markersize=5, **arm_look(arm))
