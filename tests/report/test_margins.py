"""From the interval of an effect to the verdict on it."""

import math
from dataclasses import replace

import pytest

from study import paths
from study.config.claims import Effect, Endpoint, Hypothesis, load_claims
from study.report.effects import Found
from study.report.verdicts import Margins, Outcome, Verdict


@pytest.fixture(scope="module")
def endpoint() -> Endpoint:
    """A relative effect, lower is better, threshold 2 %."""
    claims = load_claims(paths.PARAMS / "claims.yaml")
    return next(claim.endpoints[0] for claim in claims if claim.number == 3)


@pytest.mark.parametrize(
    ("hypothesis", "interval", "verdict"),
    [
        (Hypothesis.improves, (0.03, 0.1), Verdict.supported),
        (Hypothesis.improves, (0.01, 0.1), Verdict.undecided),
        (Hypothesis.improves, (-0.01, 0.015), Verdict.no_effect),
        (Hypothesis.improves, (-0.1, -0.03), Verdict.opposite),
        (Hypothesis.not_worse, (-0.01, 0.1), Verdict.supported),
        (Hypothesis.not_worse, (-0.03, 0.1), Verdict.undecided),
        (Hypothesis.not_worse, (-0.1, -0.03), Verdict.opposite),
        (Hypothesis.equal, (-0.01, 0.015), Verdict.supported),
        (Hypothesis.equal, (-0.03, 0.01), Verdict.undecided),
        (Hypothesis.equal, (0.03, 0.1), Verdict.opposite),
        (Hypothesis.equal, (-0.1, -0.03), Verdict.opposite),
    ],
)
def test_an_interval_decides_by_the_hypothesis(
    endpoint: Endpoint,
    hypothesis: Hypothesis,
    interval: tuple[float, float],
    verdict: Verdict,
) -> None:
    assert Margins.of(endpoint).decide(*interval, hypothesis) is verdict


@pytest.mark.parametrize("hypothesis", Hypothesis)
@pytest.mark.parametrize("centre", [-0.05, -0.021, 0.0, 0.019, 0.05])
def test_the_smallest_alpha_is_where_the_interval_begins_to_decide(
    endpoint: Endpoint, hypothesis: Hypothesis, centre: float
) -> None:
    values = [centre - 0.004, centre, centre + 0.002, centre + 0.003]
    alpha = Margins.of(endpoint).smallest_alpha(values, hypothesis)
    for factor, decided in ((1.01, True), (0.99, False)):
        if 0 < factor * alpha < 1:
            outcome = Outcome(
                replace(endpoint, hypothesis=hypothesis), Found(values=dict(enumerate(values)))
            )
            outcome.level = 1 - factor * alpha
            outcome.judge()
            assert (outcome.verdict is not Verdict.undecided) == decided


@pytest.mark.parametrize(
    ("effect", "better", "upper"),
    [
        (Effect.relative, "lower", -math.log(0.98)),
        (Effect.relative, "higher", math.log(1.02)),
        (Effect.absolute, "higher", 0.02),
        (Effect.speed_up, "lower", math.log(1.02)),
    ],
)
def test_the_threshold_is_of_the_effect_that_is_shown(
    endpoint: Endpoint, effect: Effect, better: str, upper: float
) -> None:
    kinds = type(endpoint.better)
    changed = replace(
        endpoint,
        effect=effect,
        better=kinds(better),
        fraction=0.5 if effect is Effect.speed_up else None,
    )
    assert Margins.of(changed).upper == pytest.approx(upper)
