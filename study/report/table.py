"""A table of the report: its rows from the grid, its entries as text and as numbers, its files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from study.config import Cell, Scaling
from study.report.names import (
    CONTROL,
    NOT_IN_GRID,
    NOT_RUN,
    SCHEDULE,
    TREATMENT,
    arm_rank,
    controls,
    generator,
    namesake,
)
from study.report.results import instances, where
from study.statistics import Estimate, t_interval
from study.tracking import write_text

_KEYS = ("data", "autoencoder", "scaling", "generator", "arm")
_TITLES = {"data": "Data", "autoencoder": "Autoencoder", "scaling": "Scaling", "arm": "Arm"}


@dataclass
class Table:
    """A table twice: as shown (column title to text) and as numbers (column name to value)."""

    name: str
    shown: list[dict[str, str]] = field(default_factory=list)
    numbers: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, shown: dict[str, str], numbers: dict[str, Any]) -> None:
        """Begin a row."""
        self.shown.append(shown)
        self.numbers.append(numbers)

    def put(
        self,
        title: str,
        name: str,
        records: pd.DataFrame,
        *,
        ran: bool,
        absent: str = "not measured",
    ) -> None:
        """Append the mean over seeds to the last row, or why there is none.

        Args:
            title: of the column as shown.
            name: of the column of numbers.
            records: one per seed.
            ran: whether a cell of the row did.
            absent: why a row that ran has no record.
        """
        values = records["value"].tolist()
        low, high = t_interval(values) or (None, None)
        mean = sum(values) / len(values) if values else None
        absent = absent if ran else NOT_RUN
        numbers = {name: absent if mean is None else mean, f"{name}_low": low, f"{name}_high": high}
        self.numbers[-1] |= numbers
        self.shown[-1][title] = absent if mean is None else mean_text(mean, high)

    def markdown(self) -> str:
        """The table with its notes."""
        rows = pd.DataFrame(self.shown)
        body = rows.to_markdown(index=False, disable_numparse=True) if self.shown else NOT_IN_GRID
        return "\n\n".join([str(body), *self.notes]) + "\n"

    def latex(self) -> str:
        """The table with booktabs rules."""
        if not self.shown:
            return f"% {NOT_IN_GRID}\n"
        style = pd.DataFrame(self.shown).style
        style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
        # The symbols of the text functions below, for every TeX engine.
        return style.to_latex(hrules=True).replace("±", r"$\pm$").replace("−", "$-$")

    def write(self, folder: Path) -> None:
        """Write the table's md, csv and tex files."""
        write_text(folder / f"{self.name}.md", self.markdown())
        write_text(folder / f"{self.name}.tex", self.latex())
        numbers = pd.DataFrame(self.numbers, dtype=object)
        write_text(folder / f"{self.name}.csv", numbers.to_csv(index=False, lineterminator="\n"))


@dataclass(frozen=True)
class Row:
    """A row of a table: the cells that differ only in their seed."""

    choices: dict[str, str]
    seeds: tuple[int | None, ...]

    @property
    def arm(self) -> str:
        """The row's arm."""
        return self.choices["arm"]

    @property
    def group(self) -> tuple[tuple[str, str], ...]:
        """What the row shares with the other arms of its comparison."""
        return tuple((key, value) for key, value in self.choices.items() if key != "arm")

    def beside(self, arm: str) -> "Row":
        """The same row of another arm."""
        return Row({**self.choices, "arm": arm}, self.seeds)

    def of(self, results: pd.DataFrame, metric: str) -> pd.DataFrame:
        """The row's records of a metric."""
        return self.all_of(where(results, "metric", metric))

    def all_of(self, records: pd.DataFrame) -> pd.DataFrame:
        """The row's records among some."""
        for name, value in self.choices.items():
            records = where(records, name, value)
        return records

    def title(self, rows: list["Row"]) -> str:
        """What names the row but for its arm: generator or autoencoder, and what else differs."""
        name = self.choices.get("generator")
        same = [other for other in rows if other.choices.get("generator") == name]
        differs = [
            self.choices[key]
            for key in ("data", "autoencoder")
            if key in self.choices and len({other.choices.get(key) for other in same}) > 1
        ]
        # The usual scaling goes without saying; another is named whatever stands beside it.
        scaling = self.choices.get("scaling", Scaling.standardised.value)
        differs += [scaling] * (scaling != Scaling.standardised.value)
        only = self.choices.get("autoencoder", self.arm)
        return ", ".join([generator(name), *differs] if name else differs or [only])

    def titles(self, rows: list["Row"], ran: int) -> dict[str, str]:
        """What names the row: its choices, without those that all rows share, and its seeds."""
        shown = {}
        if name := self.choices.get("generator"):
            shown["Generator"] = generator(name)
        for key, title in _TITLES.items():
            differs = len({other.choices.get(key) for other in rows}) > 1
            if key in self.choices and (differs or key in ("autoencoder", "arm")):
                shown[title] = self.choices[key]
        return {**shown, "Seeds": of_text(ran, len(self.seeds))}


def table_rows(grid: dict[str, Any], stage: str) -> list[Row]:
    """Rows of a stage's table, finished or not, in the grid's order with arms in theirs."""
    seeds: dict[tuple[tuple[str, str], ...], list[int | None]] = {}
    for name, _, cell in instances(grid):
        if name == stage:
            seeds.setdefault(_choices(cell), []).append(cell.seed)
    rows = [Row(dict(choices), tuple(found)) for choices, found in seeds.items()]
    groups = list(dict.fromkeys(row.group for row in rows))
    return sorted(rows, key=lambda row: (groups.index(row.group), arm_rank(row.arm)))


def with_control(rows: list[Row]) -> list[Row]:
    """Rows whose control arm is in the grid, the control's own among them."""
    controlled = {row.group for row in rows if row.arm == CONTROL}
    return [row for row in rows if row.group in controlled]


def default_schedule(rows: list[Row]) -> list[Row]:
    """Generators with the default schedule and length; of others there is a table."""
    return [row for row in rows if not controls(row.choices["generator"])]


def without_schedules(rows: list[Row]) -> list[Row]:
    """Rows but those of other time shifts and rates that stand in a table beside their default."""
    known = [row.choices for row in rows]

    def in_table(row: Row) -> bool:
        name = row.choices.get("generator", "")
        if row.arm not in (CONTROL, TREATMENT) or not controls(name):
            return False
        default = row.choices | {"generator": namesake(name)}
        return controls(name).keys() <= SCHEDULE and default in known

    return [row for row in rows if not in_table(row)]


def mean_text(mean: float, high: float | None) -> str:
    """A mean with the half-width of its interval where it has one."""
    text = f"{mean:.4g}".replace("-", "−")
    return text if high is None else f"{text} ± {high - mean:.2g}"


def gain_text(gain: Estimate, *, seeds: bool = True) -> str:
    """A gain in percent with its interval, and how many seeds it is of, or why there is none."""
    value = f"{signed(100 * gain.value, 1)} %"
    if gain.low is None or gain.high is None:
        return f"{value} (n = 1, no interval)" if seeds else value
    text = f"{value} [{signed(100 * gain.low, 1)}, {signed(100 * gain.high, 1)}]"
    return f"{text}, n = {gain.n}" if seeds else text


def signed(value: float, digits: int) -> str:
    """A number with its sign, a real minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def minutes_text(value: float) -> str:
    """Minutes; seconds matter only in short stages."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def of_text(ran: int, planned: int) -> str:
    """How many cells of a row ran."""
    if not ran:
        return NOT_RUN
    return str(ran) if ran == planned else f"{ran} of {planned}"


def _choices(cell: Cell) -> tuple[tuple[str, str], ...]:
    return tuple((key, getattr(cell, key)) for key in _KEYS if getattr(cell, key) is not None)
