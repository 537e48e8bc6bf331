"""Is a gain one of the schedule, or of the latents' scale? Both arms with others, seed by seed."""

from statistics import fmean
from typing import Any

import pandas as pd

from study.config import Scaling
from study.report.names import (
    CONTROL,
    FRECHET,
    NOT_RUN,
    SCHEDULE,
    TREATMENT,
    controls,
    first_present,
    generator,
    label,
    namesake,
    told,
)
from study.report.results import where
from study.report.table import Row, Table, default_schedule, gain_text, mean_text, table_rows
from study.report.tables import checkpoint, distances, gain_of

Ends = dict[str, dict[str, dict[int, float]]]
"""Distances at the last checkpoint, by metric, arm and seed."""
_DEFAULT = "default"


def schedule_table(grid: dict[str, Any], results: pd.DataFrame) -> Table:
    """Both arms at every time shift and rate, and each at its best, where the grid has others.

    An arm's best is the one of least mean distance at the last checkpoint, over the seeds that all
    schedules of both arms have; it is not said before all have run.
    """
    results, table = where(results, "stage", "evaluate_generator"), Table("schedules")
    groups: dict[tuple[str, ...], dict[str, dict[str, Row]]] = {}
    for row in table_rows(grid, "evaluate_generator"):
        chosen = row.choices
        if row.arm in (TREATMENT, CONTROL) and controls(chosen["generator"]).keys() <= SCHEDULE:
            kind = (namesake(chosen["generator"]), chosen["autoencoder"], chosen["scaling"])
            groups.setdefault(kind, {}).setdefault(chosen["generator"], {})[row.arm] = row
    for (default, *_), schedules in groups.items():
        named = {name: told(name) or _DEFAULT for name in schedules}
        if found := _compare(table, "Schedule", schedules, named, default, results):
            _add_best(table, found, schedules[default][CONTROL], results)
    if table.shown:
        table.notes = [
            *_notes(results),
            "A time shift above 1 moves times towards noise [2403.03206, Eq. 23]. Best: for each "
            "arm the schedule of least mean distance at the last checkpoint, chosen on the seeds "
            "it is shown on, so that both are a little too good; the gain's interval counts seeds, "
            "not the choice.",
        ]
    return table


def scaling_table(grid: dict[str, Any], results: pd.DataFrame) -> Table:
    """Both arms on latents of every scaling, where the grid has more than one."""
    results, table = where(results, "stage", "evaluate_generator"), Table("scalings")
    groups: dict[tuple[str, ...], dict[str, dict[str, Row]]] = {}
    for row in default_schedule(table_rows(grid, "evaluate_generator")):
        if row.arm in (TREATMENT, CONTROL):
            kind = (row.choices["generator"], row.choices["autoencoder"])
            groups.setdefault(kind, {}).setdefault(row.choices["scaling"], {})[row.arm] = row
    for scalings in groups.values():
        _compare(table, "Scaling", scalings, {}, Scaling.standardised.value, results)
    if table.shown:
        table.notes = [
            *_notes(results),
            "Standardised: mean 0 and standard deviation 1 in every channel, for either arm. "
            "Fixed: times the factor that is published with the autoencoder.",
        ]
    return table


def _compare(
    table: Table,
    title: str,
    alternatives: dict[str, dict[str, Row]],
    named: dict[str, str],
    default: str,
    results: pd.DataFrame,
) -> dict[str, Ends]:
    """Add a row per alternative, the default first; returns their distances, empty for one alone.

    Each is over the seeds that it shares with the default, or its own where it shares none; the
    default over those of any other.
    """
    known = {name: rows for name, rows in alternatives.items() if len(rows) == 2}
    if default not in known or len(known) < 2:
        return {}
    known = {default: known.pop(default), **known}
    ends = {name: _ends(rows, results) for name, rows in known.items()}
    own = _both(ends[default])
    shared = {name: _both(found) & own for name, found in ends.items() if name != default}
    shared[default] = set[int]().union(*shared.values())
    for name, rows in known.items():
        head = _head(rows[CONTROL]) | {title: named.get(name, name)}
        seeds = shared[name] or _both(ends[name])
        _add(table, head, dict(rows[CONTROL].group), ends[name], seeds, results)
    return ends


def _add_best(table: Table, ends: dict[str, Ends], row: Row, results: pd.DataFrame) -> None:
    metric = first_present(results, FRECHET)
    seeds = set.intersection(*(_both(found) for found in ends.values()))
    shown = _head(row) | {"Schedule": f"best of {len(ends)}"}
    numbers = dict(row.group) | {"generator": shown["Schedule"]}
    default = ends[row.choices["generator"]]
    if not seeds:
        _add(table, shown, numbers, default, seeds, results)
        return
    best = {
        arm: min(ends, key=lambda name: fmean(ends[name][metric][arm][seed] for seed in seeds))
        for arm in (CONTROL, TREATMENT)
    }
    names = "; ".join(f"`{arm}`: {told(name) or _DEFAULT}" for arm, name in best.items())
    shown["Schedule"] += f" ({names})"
    own = {each: {arm: ends[name][each][arm] for arm, name in best.items()} for each in default}
    numbers |= {f"best_{arm}": name for arm, name in best.items()}
    _add(table, shown, numbers, own, seeds, results)


def _head(row: Row) -> dict[str, str]:
    name = generator(namesake(row.choices["generator"]))
    return {"Generator": name, "Autoencoder": row.choices["autoencoder"]}


def _add(
    table: Table,
    shown: dict[str, str],
    numbers: dict[str, Any],
    ends: Ends,
    seeds: set[int],
    results: pd.DataFrame,
) -> None:
    main, *_ = ends
    named = {metric: label(metric, where(results, "metric", metric)["n"]) for metric in ends}
    shown = shown | {"Seeds": ", ".join(str(int(seed)) for seed in sorted(seeds)) or NOT_RUN}
    numbers = numbers | {"seeds": " ".join(str(int(seed)) for seed in sorted(seeds))}
    for arm in (CONTROL, TREATMENT):
        mean = fmean(ends[main][arm][seed] for seed in seeds) if seeds else None
        shown[f"{named[main]}, `{arm}`"] = NOT_RUN if mean is None else mean_text(mean, None)
        numbers[f"{main}_{arm}"] = mean
    for metric, of_arms in ends.items():
        both = sorted(seeds & _both({metric: of_arms}))
        gain = gain_of([(of_arms[TREATMENT][seed], of_arms[CONTROL][seed]) for seed in both])
        absent = "not measured" if seeds else NOT_RUN
        # The number of seeds stands in the row, but for a measure that not all of them have.
        text = gain_text(gain, seeds=len(both) < len(seeds)) if gain else absent
        shown[f"Gain, {named[metric]}"] = text
        names = (f"{metric}_gain{end}" for end in ("", "_low", "_high", "_n"))
        numbers |= dict(zip(names, gain or (absent, None, None, None), strict=True))
    table.add(shown, numbers)


def _ends(rows: dict[str, Row], results: pd.DataFrame) -> Ends:
    found: Ends = {}
    for metric in distances(results) or [first_present(results, FRECHET)]:
        last = {arm: checkpoint(row.of(results, metric), -1) for arm, row in rows.items()}
        found[metric] = {a: dict(zip(r["seed"], r["value"], strict=True)) for a, r in last.items()}
    return found


def _both(ends: Ends) -> set[int]:
    """Seeds that both arms have by the main distance."""
    main, *_ = ends.values()
    return set(main[CONTROL]) & set(main[TREATMENT])


def _notes(results: pd.DataFrame) -> list[str]:
    name = label(first_present(results, FRECHET))
    return [
        f"{name} at the last checkpoint, mean over the seeds named, which a row shares with the "
        "first; the first has those of any other, or all before one has run. Gain of "
        f"`{TREATMENT}` over `{CONTROL}`, paired by seed, with Student-t 95 % interval."
    ]
