"""Is a gain one of the schedule? Arms at the profile's shift and rate, and each at its best."""

from statistics import fmean
from typing import Any

import pandas as pd

from study.report.names import (
    CONTROL,
    FRECHET,
    NOT_RUN,
    controls,
    first_present,
    generator,
    label,
    namesake,
)
from study.report.results import where
from study.report.table import Row, Table, gain_text, mean_text, table_rows
from study.report.tables import checkpoint
from study.statistics import paired_gain

TREATMENT = "eq"
_SCHEDULE = {"shift", "rate"}


def schedule_table(grid: dict[str, Any], results: pd.DataFrame) -> Table:
    """Default against default and best against best, where the grid has other schedules.

    An arm's best is the one of least mean distance at the last checkpoint, over the seeds that all
    schedules of both arms have; nothing is said before all have run.
    """
    results = where(results, "stage", "evaluate_generator")
    metric, table = first_present(results, FRECHET), Table("schedules")
    name = label(metric, where(results, "metric", metric)["n"])
    groups: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for row in table_rows(grid, "evaluate_generator"):
        chosen = row.choices
        if row.arm in (TREATMENT, CONTROL) and controls(chosen["generator"]).keys() <= _SCHEDULE:
            kind = (namesake(chosen["generator"]), chosen["autoencoder"], chosen["scaling"])
            groups.setdefault(kind, {}).setdefault(row.arm, []).append(row)
    for (default, *_), arms in groups.items():
        compared = [{row.choices["generator"] for row in rows} for rows in arms.values()]
        if len(arms) == 2 and all(default in names and len(names) > 1 for names in compared):
            _compare(table, default, arms, results, metric, name)
    if table.shown:
        table.notes = [
            "Best: of all time shifts and rates the one of least mean distance at the last "
            "checkpoint, chosen for each arm on the seeds it is shown on, so that both are a "
            "little too good. Gain: as above, over seeds that all have."
        ]
    return table


def _compare(
    table: Table,
    default: str,
    arms: dict[str, list[Row]],
    results: pd.DataFrame,
    metric: str,
    name: str,
) -> None:
    ends: dict[str, dict[str, dict[int, float]]] = {}
    for arm, rows in arms.items():
        for row in rows:
            last = checkpoint(row.of(results, metric), -1)
            of_seeds = dict(zip(last["seed"], last["value"], strict=True))
            ends.setdefault(arm, {})[row.choices["generator"]] = of_seeds
    seeds = set.intersection(*(set(v) for found in ends.values() for v in found.values()))
    for kind in ("default", "best"):
        chosen = dict.fromkeys(arms, default)
        if kind == "best" and seeds:
            chosen = {arm: _least(found, seeds) for arm, found in ends.items()}
        shown, numbers = {"Schedule": kind}, {"schedule": kind}
        values: dict[str, list[float]] = {}
        for arm in (CONTROL, TREATMENT):
            values[arm] = [ends[arm][chosen[arm]][seed] for seed in sorted(seeds)]
            mean = fmean(values[arm]) if seeds else None
            shown[f"`{arm}`"] = generator(chosen[arm]) if seeds else NOT_RUN
            shown[f"{name}, `{arm}`"] = NOT_RUN if mean is None else mean_text(mean, None)
            numbers |= {arm: chosen[arm] if seeds else NOT_RUN, f"{metric}_{arm}": mean}
        gain = paired_gain(values[TREATMENT], values[CONTROL]) if seeds else None
        shown["Gain"] = gain_text(gain) if gain else NOT_RUN
        names = ("gain", "gain_low", "gain_high", "gain_n")
        numbers |= dict(zip(names, gain or (NOT_RUN, None, None, None), strict=True))
        table.add(shown, numbers)


def _least(found: dict[str, dict[int, float]], seeds: set[int]) -> str:
    return min(found, key=lambda name: fmean(found[name][seed] for seed in seeds))
