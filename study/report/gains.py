"""Does a gain last? What arms gain over the control at every checkpoint, by every distance."""

import math
from typing import Any

import pandas as pd

from study.report.names import CONTROL, FRECHET, NOT_RUN, first_present, label
from study.report.results import where
from study.report.table import Row, Table, gain_text, table_rows, with_control
from study.report.tables import gain_of, measures, paired
from study.statistics import Estimate


def gains_table(grid: dict[str, Any], results: pd.DataFrame) -> Table:
    """Gains along training, by the distances of `measures`.

    Args:
        grid: `params/study.yaml`.
        results: records of all cells.

    Returns:
        A row per generator, arm and distance, a column per checkpoint as part of the row's own
        run; of an arm without a seed in common with the control a single row.
    """
    own = where(results, "stage", "evaluate_generator")
    rows = [r for r in with_control(table_rows(grid, "evaluate_generator")) if r.arm != CONTROL]
    metrics, table = measures(own), Table("gains")
    found: list[tuple[Row, str, float, dict[float, Estimate]]] = []
    for row in rows:
        steps = max(row.all_of(own)["step"].dropna(), default=math.nan)
        gains = {metric: _by_part(row, own, metric, steps) for metric in metrics}
        some = {metric: by_part for metric, by_part in gains.items() if by_part}
        some = some or {first_present(own, FRECHET): {}}
        found += [(row, metric, steps, by_part) for metric, by_part in some.items()]
    parts = sorted({part for *_, gains in found for part in gains}) or [1.0]
    for row, metric, steps, gains in found:
        size = max((gain.n for gain in gains.values()), default=0)
        name = label(metric, where(own, "metric", metric)["n"])
        table.add(
            row.titles(rows, size)
            | {"Steps": f"{steps:,.0f}" if gains else NOT_RUN, "Distance": name},
            {**row.choices, "metric": metric, "steps": steps if gains else None},
        )
        for part in parts:
            gain = gains.get(part)
            text = gain_text(gain, seeds=False) if gain else "–" if gains else NOT_RUN
            table.shown[-1][f"After {part:g}"] = text
            names = (f"gain_{part:g}{end}" for end in ("", "_low", "_high", "_n"))
            table.numbers[-1] |= dict(zip(names, gain or [None] * 4, strict=True))
    if table.shown:
        table.notes = [
            f"Gain over arm `{CONTROL}` after a part of the steps, over the seeds that both have: "
            "1 − the geometric mean of the distances' ratios, Student-t 95 % interval over seeds. "
            "–: not measured at that checkpoint."
        ]
    return table


def _by_part(row: Row, results: pd.DataFrame, metric: str, steps: float) -> dict[float, Estimate]:
    """Gain over the control by part of the row's steps, where both have a seed in common."""
    arm, control = (r.of(results, metric) for r in (row, row.beside(CONTROL)))
    found = {}
    for step in arm["step"].dropna().unique():
        if gain := gain_of(paired(where(arm, "step", step), where(control, "step", step))):
            # Rounded, so that runs of other lengths share a column.
            found[round(float(step) / steps, 4)] = gain
    return found
