"""The effect of an endpoint in each seed, from the results."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import pandas as pd

from study.config.claims import Autoencoders, Better, Effect, Endpoint
from study.report.names import SECOND, controls, objective
from study.report.results import instances, where
from study.report.speed import curves, in_steps
from study.report.table import Row, table_rows
from study.statistics import speed_up

LEAST_ARMS = 4
"""Of a rank correlation: with fewer, chance alone gives ±1 too often."""
_DISCRETE = "vq"
_ANY = {
    Autoencoders.main: "a continuous autoencoder",
    Autoencoders.others: "another continuous autoencoder",
    Autoencoders.discrete: "a discrete autoencoder",
}


@dataclass(slots=True)
class Found:
    """What the results hold for one endpoint on one autoencoder."""

    choices: dict[str, str] = field(default_factory=dict)
    """Of the rows compared, without arm."""
    arms: tuple[str, ...] = ()
    metric: str = ""
    sizes: list[int] = field(default_factory=list)
    """Numbers of images behind it."""
    values: dict[int, float] = field(default_factory=dict)
    """Effect of each seed on the scale on which seeds are averaged; positive: better."""
    bound: str = ""
    """speed_up: `at least`, `at most` or `unknown` where a curve was censored."""
    missing: list[str] = field(default_factory=list)
    """What would be needed, where there are no values."""
    second: "Found | None" = None
    """The same comparison by the second extractor, where it measured."""


def find(endpoint: Endpoint, grid: dict[str, Any], results: pd.DataFrame) -> list[Found]:
    """Effects of an endpoint, one per autoencoder and generator it is about; at least one."""
    stage = "evaluate_generator" if endpoint.generator else "evaluate_autoencoder"
    rows = [
        row
        for row in table_rows(grid, stage)
        if objective(row.choices.get("generator", "")) == (endpoint.generator or "")
        and row.choices.get("scaling") == endpoint.scaling
        and not controls(row.choices.get("generator", ""))
    ]
    kind = f"generator {endpoint.generator}" if endpoint.generator else "an autoencoder"
    if not rows:
        return [Found(missing=[f"{kind}{_with_scaling(endpoint)}"])]
    chosen = _autoencoders(endpoint.autoencoders, grid, results)
    groups: dict[tuple[str, str], list[Row]] = {}
    for name in chosen:
        for row in rows:
            if row.choices["autoencoder"] == name:
                groups.setdefault((name, row.choices.get("generator", "")), []).append(row)
    if not groups:
        with_generator = f" with {kind}" if endpoint.generator else ""
        # The family of an autoencoder is known once one of its cells has run.
        ran = set(results["family"].dropna())
        missing = f"{_ANY[endpoint.autoencoders]}{with_generator}" if ran else "finished cells"
        return [Found(missing=[missing])]
    every = [_by_both(endpoint, rows, results) for rows in groups.values()]
    # Of several other autoencoders those that lack an arm say nothing about the rest.
    ran = [found for found in every if not found.missing]
    return ran if endpoint.autoencoders is Autoencoders.others and ran else every


def _autoencoders(kind: Autoencoders, grid: dict[str, Any], results: pd.DataFrame) -> list[str]:
    """Autoencoders of a kind in the grid's order, by the family in their results."""
    order = [str(c.autoencoder) for s, _, c in instances(grid) if s == "evaluate_autoencoder"]
    family = dict(zip(results["autoencoder"], results["family"], strict=True))
    known = [name for name in dict.fromkeys(order) if isinstance(family.get(name), str)]
    continuous = [name for name in known if family[name] != _DISCRETE]
    match kind:
        case Autoencoders.main:
            return continuous[:1]
        case Autoencoders.others:
            return continuous[1:]
        case Autoencoders.discrete:
            return [name for name in known if family[name] == _DISCRETE]


def _by_both(endpoint: Endpoint, rows: list[Row], results: pd.DataFrame) -> Found:
    """The effect, and beside it that by the second extractor."""
    effect = _correlated if endpoint.effect is Effect.correlation else _compared
    found = effect(endpoint, rows, results)
    if found.metric in SECOND and endpoint.generator:
        second = effect(replace(endpoint, metric=[SECOND[found.metric]]), rows, results)
        found.second = second if second.values else None
    return found


def _compared(endpoint: Endpoint, rows: list[Row], results: pd.DataFrame) -> Found:
    stage = "evaluate_generator" if endpoint.generator else "evaluate_autoencoder"
    results = where(results, "stage", stage)
    by_arm = {row.arm: row for row in rows}
    arms = [str(endpoint.treatment), str(endpoint.control)]
    found = Found({k: v for k, v in rows[0].choices.items() if k != "arm"}, tuple(arms))
    if absent := [arm for arm in arms if arm not in by_arm]:
        found.missing = [f"arm {arm}{_of(endpoint)}" for arm in absent]
        return found
    found.metric = measured(endpoint.metric, results, rows)
    ours, theirs = (by_arm[arm].of(results, found.metric) for arm in arms)
    found.sizes = sorted(set(ours["n"].dropna()) | set(theirs["n"].dropna()))
    seeds = sorted(set(ours["seed"].dropna()) & set(theirs["seed"].dropna()))
    if not seeds:
        found.missing = [f"finished cells of {arms[0]} and {arms[1]}{_of(endpoint)}"]
    elif endpoint.effect is Effect.speed_up:
        _sped_up(found, endpoint, ours, theirs)
    elif endpoint.effect is Effect.relative and min(*ours["value"], *theirs["value"]) <= 0:
        found.missing = [f"positive values of {found.metric}"]
    else:
        found.values = {
            int(seed): _difference(endpoint, *(where(r, "seed", seed) for r in (ours, theirs)))
            for seed in seeds
        }
    return found


def _difference(endpoint: Endpoint, ours: pd.DataFrame, theirs: pd.DataFrame) -> float:
    """Of one seed: how much better the treatment is, over the last checkpoints of both."""
    scale: Callable[[float], float] = (
        math.log if endpoint.effect is Effect.relative else lambda value: value
    )
    sign = -1 if endpoint.better is Better.lower else 1
    if endpoint.checkpoints is None:
        return sign * (scale(ours["value"].iloc[-1]) - scale(theirs["value"].iloc[-1]))
    treatment, control = (dict(zip(r["step"], r["value"], strict=True)) for r in (ours, theirs))
    steps = sorted(treatment.keys() & control.keys())[-endpoint.checkpoints :]
    return sign * fmean(scale(treatment[step]) - scale(control[step]) for step in steps)


def _sped_up(found: Found, endpoint: Endpoint, ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    moments = in_steps(curves(ours), curves(theirs), endpoint.fraction or 1.0)
    if moments is None:
        found.missing = [f"a checkpoint before {endpoint.fraction:g} of the run"]
        return
    pairs = moments[1]
    factors = speed_up([c for c, _ in pairs.values()], [t for _, t in pairs.values()])
    found.bound = factors.bound
    found.values = dict(zip(pairs, map(math.log, factors.factors), strict=True))


def _correlated(endpoint: Endpoint, rows: list[Row], results: pd.DataFrame) -> Found:
    """Spearman's correlation over arms in each seed, in all seeds over the same arms."""
    choices = {k: v for k, v in rows[0].choices.items() if k != "arm"}
    generated = where(results, "stage", "evaluate_generator")
    encoded = where(results, "stage", "evaluate_autoencoder")
    metric = measured(endpoint.metric, generated, rows)
    beside = measured(endpoint.against, encoded, [_autoencoder(row) for row in rows])
    by_seed: dict[int, dict[str, tuple[float, float]]] = {}
    for row in rows:
        ends = _last(row.of(generated, metric))
        errors = _last(_autoencoder(row).of(encoded, beside))
        for seed in ends.keys() & errors.keys():
            by_seed.setdefault(seed, {})[row.arm] = errors[seed], ends[seed]
    whole = {s: arms for s, arms in sorted(by_seed.items()) if len(arms) >= LEAST_ARMS}
    # A seed with more arms than another has a correlation of something else.
    shared = [row.arm for row in rows if all(row.arm in arms for arms in whole.values())]
    if not whole or len(shared) < LEAST_ARMS:
        needed = [f"at least {LEAST_ARMS} arms{_of(endpoint)}, the same in each seed"]
        return Found(choices, tuple(row.arm for row in rows), metric, missing=needed)
    found = Found(choices, tuple(shared), metric)
    for seed, arms in whole.items():
        # The same value everywhere has no rank.
        one, other = (pd.Series([arms[arm][side] for arm in shared]).rank() for side in (0, 1))
        varies = one.nunique() > 1 and other.nunique() > 1
        found.values[seed] = float(one.corr(other)) if varies else 0.0
    return found


def measured(names: list[str], results: pd.DataFrame, rows: Iterable[Row]) -> str:
    """The first of the names that any row has; `*` stands for the largest number; else the last."""
    present = {metric for row in rows for metric in row.all_of(results)["metric"]}
    for name in names:
        if name.endswith("*"):
            sizes = [m.removeprefix(name[:-1]) for m in present if m.startswith(name[:-1])]
            if numbers := [int(size) for size in sizes if size.isdigit()]:
                return f"{name[:-1]}{max(numbers)}"
        elif name in present:
            return name
    return names[-1].removesuffix("_*")


def _last(records: pd.DataFrame) -> dict[int, float]:
    """Value of each seed, at the last checkpoint where there are any."""
    ordered = records.sort_values("step", kind="stable")
    return dict(zip(ordered["seed"].astype(int), ordered["value"], strict=True))


def _autoencoder(row: Row) -> Row:
    kept = ("data", "autoencoder", "arm")
    return Row({key: row.choices[key] for key in kept if key in row.choices}, row.seeds)


def _of(endpoint: Endpoint) -> str:
    return f" of {endpoint.generator}{_with_scaling(endpoint)}" if endpoint.generator else ""


def _with_scaling(endpoint: Endpoint) -> str:
    return f" with scaling {endpoint.scaling}" if endpoint.scaling == "fixed" else ""
