"""From results to verdicts, by the rules of `params/claims.yaml` and by nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import fmean
from typing import Any

import pandas as pd

from study.config.claims import Better, Claim, Effect, Endpoint, Hypothesis, Status
from study.report.effects import Found, find
from study.statistics import Estimate, estimate, holm_levels, seeds_needed, tail_probability

ALPHA = 0.05


class Verdict(Enum):
    """What the study says of a claim or an endpoint."""

    reproduced = "reproduced"
    """Supported by the paper's own model, data and FID."""
    supported = "supported"
    opposite = "opposite"
    no_effect = "no effect of practical size"
    undecided = "undecided"
    not_run = "not run"


@dataclass(frozen=True, slots=True)
class Margins:
    """The threshold of practical size on the scale on which seeds are averaged."""

    lower: float
    upper: float

    @classmethod
    def of(cls, endpoint: Endpoint) -> "Margins":
        """Effects are averaged as logarithms where they are shares or factors."""
        t = endpoint.threshold
        if endpoint.effect in (Effect.absolute, Effect.correlation):
            return cls(-t, t)
        if endpoint.effect is Effect.speed_up:
            return cls(-math.log1p(t), math.log1p(t))
        if endpoint.better is Better.lower:
            return cls(-math.log1p(t), -math.log1p(-t))
        return cls(math.log1p(-t), math.log1p(t))

    def decide(self, low: float, high: float, hypothesis: Hypothesis) -> Verdict:
        """Verdict on an interval."""
        within = self.lower < low and high < self.upper
        match hypothesis:
            case Hypothesis.improves:
                supported, opposite = low > self.upper, high < self.lower
            case Hypothesis.not_worse:
                supported, opposite, within = low > self.lower, high < self.lower, False
            case Hypothesis.equal:
                supported, opposite = within, low > self.upper or high < self.lower
        if supported:
            return Verdict.supported
        if opposite:
            return Verdict.opposite
        return Verdict.no_effect if within else Verdict.undecided

    def smallest_alpha(self, values: Sequence[float], hypothesis: Hypothesis) -> float:
        """Least alpha at which the two-sided t interval of the values decides."""

        def above(bound: float) -> float:
            return min(1.0, 2 * tail_probability(values, bound))

        def below(bound: float) -> float:
            return min(1.0, 2 * tail_probability([-value for value in values], -bound))

        within = max(above(self.lower), below(self.upper))
        match hypothesis:
            case Hypothesis.improves:
                return min(above(self.upper), below(self.lower), within)
            case Hypothesis.not_worse:
                return min(above(self.lower), below(self.lower))
            case Hypothesis.equal:
                return min(above(self.upper), below(self.lower), within)


@dataclass(slots=True)
class Outcome:
    """An endpoint on one autoencoder and what came of it."""

    endpoint: Endpoint
    found: Found
    level: float = 1 - ALPHA
    """Of the interval."""
    estimate: Estimate | None = None
    """On the scale on which seeds are averaged; None where nothing ran."""
    verdict: Verdict = Verdict.not_run
    contradicted: bool = False
    """Whether there would be a verdict, had the second extractor an effect of the same sign."""

    @property
    def asked(self) -> int | None:
        """Seeds at which the interval would be as narrow as the threshold; by spread, not mean."""
        values = list(self.found.values.values())
        if len(values) < 2 or self.found.bound:
            return None
        margins = Margins.of(self.endpoint)
        return seeds_needed(values, min(-margins.lower, margins.upper), self.level)

    def judge(self) -> None:
        """Set estimate and verdict by the level and, where it measured, the second extractor."""
        values = list(self.found.values.values())
        if not values:
            return
        self.estimate = estimate(values, self.level)
        if self.found.bound:
            self.estimate = self.estimate._replace(low=None, high=None)
        self.verdict = Verdict.undecided
        _, low, high, _ = self.estimate
        if low is not None and high is not None:
            margins = Margins.of(self.endpoint)
            self.verdict = margins.decide(low, high, self.endpoint.hypothesis)
            self.contradicted = self._has_sign() and not self._same_sign()
            self.verdict = Verdict.undecided if self.contradicted else self.verdict

    def _has_sign(self) -> bool:
        """Whether the verdict is on a difference, not on there being none of practical size."""
        differs = self.endpoint.hypothesis is not Hypothesis.equal
        return self.verdict is Verdict.opposite or (self.verdict is Verdict.supported and differs)

    def _same_sign(self) -> bool:
        """Whether the second extractor, where it measured, has an effect of the same sign."""
        second = self.found.second
        if second is None:
            return True
        ours, theirs = (fmean(found.values.values()) for found in (self.found, second))
        # A bound leaves the sign open unless it lies beyond zero.
        known = second.bound in ("", "at least" if theirs > 0 else "at most")
        return known and ours * theirs > 0

    def testable(self) -> bool:
        """Whether there is an interval."""
        return len(self.found.values) > 1 and not self.found.bound


@dataclass(slots=True)
class Judged:
    """A claim with its verdict."""

    claim: Claim
    outcomes: list[Outcome] = field(default_factory=list)
    verdict: Verdict = Verdict.not_run

    @property
    def missing(self) -> list[str]:
        """What a verdict would need, each once."""
        wanted = [each for o in self.outcomes if o.endpoint.primary for each in o.found.missing]
        return list(dict.fromkeys([self.claim.missing] if self.claim.missing else wanted))


def judge(claims: list[Claim], grid: dict[str, Any], results: pd.DataFrame) -> list[Judged]:
    """Verdict of every claim.

    Args:
        claims: of `params/claims.yaml`.
        grid: `params/study.yaml`.
        results: `results.csv`.
    """
    judged = [
        Judged(claim, [Outcome(e, f) for e in claim.endpoints for f in find(e, grid, results)])
        for claim in claims
    ]
    for family in {claim.family for claim in claims}:
        _adjust([each for each in judged if each.claim.family == family])
    for each in judged:
        for outcome in each.outcomes:
            outcome.judge()
        each.verdict = _together([o.verdict for o in each.outcomes if o.endpoint.primary])
        if each.verdict is Verdict.supported and _published(each, grid["profile"]):
            each.verdict = Verdict.reproduced
    return judged


def _adjust(family: list[Judged]) -> None:
    """Give the exploratory primary endpoints of a family their simultaneous levels."""
    exploratory = (each for each in family if each.claim.status is Status.exploratory)
    tested = [
        outcome
        for each in exploratory
        for outcome in each.outcomes
        if outcome.endpoint.primary and outcome.testable()
    ]
    p_values = [
        Margins.of(o.endpoint).smallest_alpha(list(o.found.values.values()), o.endpoint.hypothesis)
        for o in tested
    ]
    for outcome, level in zip(tested, holm_levels(p_values, ALPHA), strict=True):
        outcome.level = level


def _together(verdicts: list[Verdict]) -> Verdict:
    """Verdict on a claim from those on its primary endpoints."""
    if not verdicts or Verdict.not_run in verdicts:
        return Verdict.not_run
    if Verdict.opposite in verdicts:
        return Verdict.opposite
    return verdicts[0] if len(set(verdicts)) == 1 else Verdict.undecided


def _published(judged: Judged, profile: str) -> bool:
    """Whether the evidence is the paper's own: model, data and FID."""
    primary = [outcome for outcome in judged.outcomes if outcome.endpoint.primary]
    return profile == "paper" and all(o.found.metric in ("fid", "rfid") for o in primary)
