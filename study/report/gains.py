"""Does a gain last? What arms gain over the control at every checkpoint."""

from typing import Any

import pandas as pd

from study.report.names import CONTROL, FRECHET, SECOND, first_present, label
from study.report.results import where
from study.report.table import Row, Table, gain_text, table_rows, with_control
from study.report.tables import paired
from study.statistics import Estimate, paired_gain


def gains_table(grid: dict[str, Any], results: pd.DataFrame) -> Table:
    """Gains along training by the main distance and by that of the second extractor.

    Args:
        grid: `params/study.yaml`.
        results: records of all cells.

    Returns:
        A row per generator, arm and distance of which the control ran with a common seed, a
        column per checkpoint.
    """
    own = where(results, "stage", "evaluate_generator")
    main = first_present(own, FRECHET)
    known = set(own["metric"])
    metrics = [name for name in dict.fromkeys((main, SECOND.get(main, main))) if name in known]
    rows = with_control(table_rows(grid, "evaluate_generator"))
    found = [
        (row, metric, gains)
        for row in rows
        for metric in metrics
        if row.arm != CONTROL and (gains := gains_by_checkpoint(row, own, metric))
    ]
    table, shown_rows = Table("gains"), [row for row, _, _ in found]
    fractions = sorted({fraction for _, _, gains in found for fraction in gains})
    for row, metric, gains in found:
        size = max(gain.n for gain in gains.values())
        name = label(metric, where(own, "metric", metric)["n"])
        table.add(
            row.titles(shown_rows, size) | {"Distance": name}, {**row.choices, "metric": metric}
        )
        for fraction in fractions:
            gain = gains.get(fraction)
            text = gain_text(gain, seeds=False) if gain else "no checkpoint"
            table.shown[-1][f"At {fraction:g} of the run"] = text
            names = (f"gain_{fraction:g}{part}" for part in ("", "_low", "_high", "_n"))
            table.numbers[-1] |= dict(zip(names, gain or [None] * 4, strict=True))
    if table.shown:
        table.notes = [
            f"Gain over arm `{CONTROL}` at the same step, over the seeds that both have: 1 − the "
            "geometric mean of the distances' ratios, Student-t 95 % interval over seeds. A gain "
            "that shrinks along training is, so far, one of speed; where it ends is not seen in a "
            "run that is still learning."
        ]
    return table


def gains_by_checkpoint(row: Row, results: pd.DataFrame, metric: str) -> dict[float, Estimate]:
    """Gain over the control by part of the row's run, where both have a seed in common."""
    arm, control = (r.of(results, metric) for r in (row, row.beside(CONTROL)))
    steps = sorted(arm["step"].dropna().unique())
    found = {}
    for step in steps:
        pairs = paired(where(arm, "step", step), where(control, "step", step))
        if pairs and min(min(pair) for pair in pairs) > 0:
            found[float(step / steps[-1])] = paired_gain(
                [t for t, _ in pairs], [c for _, c in pairs]
            )
    return found
