"""Figure of a claim: each endpoint's effect with seeds, interval, threshold and paper."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from study.config.claims import Effect
from study.report.claims import shown
from study.report.comparison import Beside, beside
from study.report.figures import STYLE, WIDTH, save
from study.report.results import write_csv
from study.report.table import Table
from study.report.verdicts import Judged

_OURS, _PAPER = "#0072B2", "#D55E00"
_COLUMNS = ["comparison", "kind", "seed", "value", "low", "high", "unit"]
_UNITS = {Effect.relative: "%", Effect.speed_up: "×"}


def forests(judged: list[Judged], endpoints: Table, folder: Path) -> None:
    """Write `claim_<number>` (png, pdf, csv) of every claim of which an endpoint ran.

    Args:
        judged: claims with their verdicts.
        endpoints: the table of endpoints, for the names.
        folder: where the files go; it is made even where nothing ran.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = iter(endpoints.shown)
    for each in judged:
        named = [(beside(each.claim.number, o), next(rows)) for o in each.outcomes]
        ran = [(b, f"{r['Comparison']}\n{r['Measure']}") for b, r in named if b is not None]
        if ran:
            target = folder / f"claim_{each.claim.number:02d}"
            data = pd.DataFrame([row for one in ran for row in _rows(*one)], columns=_COLUMNS)
            write_csv(data, target.with_suffix(".csv"))
            save(_figure(ran), target)


def _rows(compared: Beside, name: str) -> Iterator[tuple[object, ...]]:
    name, unit = name.replace("\n", ": "), _UNITS.get(compared.endpoint.effect, "")
    factor = 100 if unit == "%" else 1
    ends = (None if end is None else factor * end for end in (compared.low, compared.high))
    yield name, "mean", None, factor * compared.value, *ends, unit
    for seed, value in compared.outcome.found.values.items():
        yield name, "seed", seed, factor * shown(compared.endpoint, value), None, None, unit
    if compared.paper is not None:
        yield name, "paper", None, factor * compared.paper, None, None, unit


def _figure(ran: list[tuple[Beside, str]]) -> Figure:
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.75 * len(ran) + 0.6), layout="constrained")
        for axes, (compared, name) in zip(
            figure.subplots(len(ran), 1, squeeze=False).flatten(), ran, strict=True
        ):
            _draw(axes, compared, name)
        look = {"linestyle": "", "markersize": 7}
        handles = [
            Line2D([], [], color=_OURS, marker="o", label="mean, interval", markersize=7),
            Line2D([], [], color=_OURS, marker="|", label="each seed", **look),
            Patch(color="#dddddd", label="below practical size"),
        ]
        if any(compared.paper is not None for compared, _ in ran):
            paper = Line2D([], [], color=_PAPER, marker="D", mfc="white", label="paper", **look)
            handles.append(paper)
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw(axes: Axes, compared: Beside, name: str) -> None:
    endpoint = compared.endpoint
    unit = _UNITS.get(endpoint.effect, "")
    factor, middle = (100 if unit == "%" else 1), (1 if endpoint.effect is Effect.speed_up else 0)
    size = factor * endpoint.threshold
    axes.axvspan(middle - size, middle + size, color="#dddddd", linewidth=0)
    axes.axvline(middle, color="black", linewidth=0.8)
    if compared.low is not None and compared.high is not None:
        axes.plot([factor * compared.low, factor * compared.high], [0, 0], color=_OURS, linewidth=2)
    for value in compared.outcome.found.values.values():
        at = factor * shown(endpoint, value)
        axes.plot([at], [0], color=_OURS, marker="|", markersize=12)
    axes.plot([factor * compared.value], [0], color=_OURS, marker="o", markersize=7)
    if compared.paper is not None:
        axes.plot([factor * compared.paper], [0], color=_PAPER, marker="D", mfc="white")
    text = name if endpoint.primary else f"{name} (secondary)"
    axes.set_ylabel(text.replace("`", ""), rotation=0, ha="right", va="center", fontsize=8)
    axes.set(yticks=[], ylim=(-1, 1))
    axes.margins(x=0.1)
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: _tick(value, unit))


def _tick(value: float, unit: str) -> str:
    return f"{value:g}{' ' if unit == '%' else ''}{unit}".replace("-", "−")
