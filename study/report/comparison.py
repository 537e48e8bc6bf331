"""What is said of each claim that was run: endpoints beside the paper's numbers, cost, sources."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from study.config.claims import Effect, Endpoint
from study.report.claims import OTHER_SIGN, effect_text, shown
from study.report.names import NOT_RUN, generator
from study.report.paper import effect_of, published
from study.report.protocol import Cells
from study.report.results import instances
from study.report.table import Table, signed
from study.report.verdicts import Judged, Outcome

_NONE = "–"


@dataclass(frozen=True)
class Beside:
    """An endpoint's effect and the paper's, on the scale on which they are shown."""

    outcome: Outcome
    value: float
    low: float | None
    high: float | None
    paper: float | None
    source: str

    @property
    def endpoint(self) -> Endpoint:
        """What was compared."""
        return self.outcome.endpoint

    def difference(self) -> str:
        """Ours less the paper's, with the interval of ours."""
        if self.paper is None or self.outcome.found.bound:
            return _NONE
        ends = [None if v is None else v - self.paper for v in (self.value, self.low, self.high)]
        texts = [None if v is None else _size(self.endpoint, v) for v in ends]
        unit = {Effect.relative: " points", Effect.speed_up: "×"}.get(self.endpoint.effect, "")
        interval = "" if texts[1] is None or texts[2] is None else f" [{texts[1]}, {texts[2]}]"
        return f"{texts[0]}{unit}{interval}"

    def paper_text(self) -> str:
        """The paper's effect."""
        if self.paper is None:
            return _NONE
        if self.endpoint.effect is Effect.speed_up:
            return f"{self.paper:.3g}×"
        return _size(self.endpoint, self.paper) + (
            " %" if self.endpoint.effect is Effect.relative else ""
        )


def beside(claim: int, outcome: Outcome) -> Beside | None:
    """An endpoint that ran, beside the paper."""
    if outcome.estimate is None:
        return None
    endpoint, found = outcome.endpoint, outcome.found
    value, low, high, _ = outcome.estimate
    ends = [None if v is None else shown(endpoint, v) for v in (low, high)]
    name = found.choices.get("autoencoder", "")
    numbers = published(claim, endpoint, found.metric, name)
    paper = effect_of(numbers, endpoint) if numbers else None
    source = numbers.source if numbers else ""
    return Beside(outcome, shown(endpoint, value), ends[0], ends[1], paper, source)


def verdict_table(judged: list[Judged], endpoints: Table) -> Table:
    """A short row per claim that ran: verdict, effect of an endpoint that gave it, the paper's."""
    table, seen = Table("verdicts"), set[str]()
    for each in judged:
        pairs = [(o, beside(each.claim.number, o)) for o in each.outcomes if o.endpoint.primary]
        ran = [(o, b) for o, b in pairs if b is not None]
        if not ran:
            continue
        # Beside "opposite", an endpoint that is supported would mislead; one that an earlier claim
        # has shown would tell less than another.
        same = [r for r in ran if r[0].verdict is each.verdict] or ran
        texts = [_effect(_row_of(endpoints, judged, outcome), outcome) for outcome, _ in same]
        place = next((i for i, text in enumerate(texts) if text not in seen), 0)
        (outcome, first), effect = same[place], texts[place]
        seen.add(effect)
        more = f"; 1 of {len(pairs)} endpoints" if len(pairs) > 1 else ""
        more += f"; needs {', '.join(each.missing)}" if each.missing else ""
        more += _of_generators(each)
        table.add(
            {
                "Claim": f"{each.claim.number}. {each.claim.claim}",
                "Verdict": each.verdict.value,
                "Effect": f"{effect}{more}",
                "Paper": first.paper_text(),
            },
            {
                "number": each.claim.number,
                "verdict": each.verdict.value,
                "metric": outcome.found.metric,
                "value": first.value,
                "low": first.low,
                "high": first.high,
                "paper": first.paper,
            },
        )
    return table


def _effect(row: dict[str, str], outcome: Outcome) -> str:
    return f"{row['Measure']}: {effect_text(outcome)}{OTHER_SIGN * outcome.contradicted}"


def claim_sections(
    judged: list[Judged], grid: dict[str, Any], cells: Cells, claims: Table, endpoints: Table
) -> list[dict[str, Any]]:
    """What the report's template shows of every claim of which an endpoint ran.

    Args:
        judged: claims with their verdicts.
        grid: `params/study.yaml`.
        cells: contents of the metrics files.
        claims: the table of claims, for cost, scope and number of seeds.
        endpoints: the table of endpoints, for names, rules and single seeds.
    """
    sections = []
    for each, row in zip(judged, claims.shown, strict=True):
        ran = [(o, b) for o in each.outcomes if (b := beside(each.claim.number, o))]
        if not ran:
            continue
        sections.append(
            {
                "number": each.claim.number,
                "claim": each.claim.claim,
                "verdict": each.verdict.value,
                "status": each.claim.status.value,
                "covers": each.claim.covers,
                "paper": each.claim.paper,
                "source": each.claim.source,
                "ran": any(o.endpoint.primary for o, _ in ran),
                "seeds": row["Seeds"],
                "cost": row["Cost [min]"],
                "scope": row["Scope"],
                "missing": each.missing,
                "unrun": _unrun(each),
                "table": _table(ran, judged, endpoints).markdown(),
                "sources": sorted({b.source for _, b in ran if b.source}),
                "cells": _cells([o for o, _ in ran], grid, cells),
            }
        )
    return sections


def not_run_claims(judged: list[Judged]) -> list[str]:
    """Claims without any endpoint that ran, and what they need."""
    return [
        f"Claim {each.claim.number}, {each.claim.claim}: needs {', '.join(each.missing) or NOT_RUN}"
        for each in judged
        if all(outcome.estimate is None for outcome in each.outcomes)
    ]


def _of_generators(each: Judged) -> str:
    """What came of each generator, where the verdict is by the autoencoder alone."""
    if any(o.endpoint.generator for o in each.outcomes if o.endpoint.primary):
        return ""
    told = ""
    for name in dict.fromkeys(o.endpoint.generator for o in each.outcomes if o.endpoint.generator):
        own = Counter(o.verdict.value for o in each.outcomes if o.endpoint.generator == name)
        counts = (verdict if own.total() == 1 else f"{n} {verdict}" for verdict, n in own.items())
        told += f"; {generator(name)} (secondary): {', '.join(counts)}"
    return told


def _unrun(each: Judged) -> list[str]:
    """What secondary endpoints that did not run need; what primary ones do is `missing`."""
    without = [o for o in each.outcomes if o.estimate is None and not o.endpoint.primary]
    return list(dict.fromkeys(need for o in without for need in o.found.missing))


def _table(ran: list[tuple[Outcome, Beside]], judged: list[Judged], endpoints: Table) -> Table:
    table = Table("claim")
    for outcome, compared in ran:
        row = _row_of(endpoints, judged, outcome)
        mark = "" if outcome.endpoint.primary else " (secondary)"
        table.add(
            {
                "Comparison": f"{row['Comparison']}: {row['Measure']}{mark}",
                "Ours": row["Effect"],
                "Paper": compared.paper_text(),
                "Ours − paper": compared.difference(),
                "Supported if": row["Supported"],
                "Each seed": row["Each seed"],
                "Verdict": row["Verdict"],
            },
            {},
        )
    return table


def _row_of(endpoints: Table, judged: list[Judged], outcome: Outcome) -> dict[str, str]:
    """The row of the table of endpoints that shows an outcome; they have the same order."""
    every = [id(o) for each in judged for o in each.outcomes]
    return endpoints.shown[every.index(id(outcome))]


def _cells(outcomes: list[Outcome], grid: dict[str, Any], cells: Cells) -> list[dict[str, str]]:
    """The evaluated cells behind outcomes, with the file of their parameters and their commit."""
    found = {}
    for stage, instance, cell in instances(grid):
        for outcome in outcomes:
            wanted = "evaluate_generator" if outcome.endpoint.generator else "evaluate_autoencoder"
            choices = outcome.found.choices.items()
            same = all(getattr(cell, name) == value for name, value in choices)
            mine = cell.arm in outcome.found.arms and cell.seed in outcome.found.values
            if stage == wanted and same and mine and (stage, instance) in cells:
                made = cells[stage, instance].get("environment", {})
                path = f"metrics/{stage}/{instance}.json"
                commit = str(made.get("commit"))
                found[path] = {"instance": instance, "path": path, "commit": commit}
    return list(found.values())


def _size(endpoint: Endpoint, value: float) -> str:
    if endpoint.effect is Effect.relative:
        return signed(100 * value, 1)
    return signed(value, 2 if endpoint.effect is Effect.speed_up else 3)
