import math

import pytest

from study import paths
from study.config.claims import Effect, load_claims
from study.report.claims import endpoints_table
from study.report.comparison import beside, verdict_table
from study.report.effects import Found
from study.report.paper import effect_of, published
from study.report.verdicts import Judged, Outcome, Verdict

CLAIMS = {claim.number: claim for claim in load_claims(paths.PARAMS / "claims.yaml")}


def outcome(claim: int, place: int, values: list[float]) -> Outcome:
    endpoint = CLAIMS[claim].endpoints[place]
    metric = endpoint.metric[-1]
    found = Found({"autoencoder": "taesd"}, ("eq", "plain"), metric, values=dict(enumerate(values)))
    made = Outcome(endpoint, found)
    made.judge()
    return made


@pytest.mark.parametrize(
    ("claim", "place", "effect"),
    [
        (1, 0, 1 - 0.56 / 0.89),
        (1, 1, 1 - 0.43 / 0.69),
        (2, 0, 1 - 12 / 64),
        (3, 0, 1 - 34.1 / 43.5),
        (3, 1, 1 - 34.1 / 43.8),
        (4, 2, 1 - 43.5 / 43.8),
        (6, 0, 1 - 0.82 / 0.81),
        (6, 2, 25.95 - 25.82),
        (7, 3, 1 - 35.8 / 41.2),
        (9, 0, 1 - 35.4 / 34.1),
        (11, 0, 1 - 39.4 / 62.2),
        (12, 2, 1 - 7.54 / 7.94),
        (12, 4, 1 - 5.9 / 6.8),
        (14, 0, 1 - 31.2 / 33.0),
        (15, 0, 1 - 7.5 / 7.9),
        (15, 1, 0.63 - 0.65),
        (16, 0, 7 / 1.5),
        (16, 1, 4.0),
    ],
)
def test_the_papers_effect_of_an_endpoint(claim: int, place: int, effect: float):
    endpoint = CLAIMS[claim].endpoints[place]
    numbers = published(claim, endpoint, endpoint.metric[-1], "taesd")
    assert numbers is not None
    assert effect_of(numbers, endpoint) == pytest.approx(effect)


def test_where_the_paper_has_no_number_there_is_none():
    for claim, place in ((4, 1), (5, 0), (7, 0), (12, 3), (16, 2), (18, 0), (19, 0), (20, 0)):
        endpoint = CLAIMS[claim].endpoints[place]
        assert published(claim, endpoint, endpoint.metric[-1], "taesd") is None, (claim, place)


def test_the_difference_keeps_the_interval_of_ours():
    values = [-math.log(0.8), -math.log(0.75), -math.log(0.7)]
    found = beside(3, outcome(3, 0, values))
    assert found is not None
    assert found.paper is not None
    assert found.low is not None
    assert found.high is not None
    ends = [100 * (v - found.paper) for v in (found.value, found.low, found.high)]
    texts = [f"{v:+.1f}".replace("-", "−") for v in ends]
    assert found.difference() == f"{texts[0]} points [{texts[1]}, {texts[2]}]"


def test_one_seed_has_a_difference_without_interval():
    found = beside(6, outcome(6, 2, [-0.5]))
    assert found is not None
    assert found.difference() == "−0.630"
    assert found.paper_text() == "+0.130"


def test_a_bounded_speed_up_has_no_difference():
    made = outcome(16, 0, [math.log(1.5), math.log(1.4)])
    made.found.bound = "at least"
    made.judge()
    found = beside(16, made)
    assert found is not None
    assert found.endpoint.effect is Effect.speed_up
    assert found.paper_text() == "4.67×"
    assert found.difference() == "–"


def test_beside_a_verdict_stands_an_endpoint_that_gave_it():
    better = outcome(6, 0, [0.5, 0.51, 0.49])
    worse = outcome(6, 2, [-0.5, -0.52, -0.51])
    assert (better.verdict, worse.verdict) == (Verdict.supported, Verdict.opposite)
    judged = [Judged(CLAIMS[6], [better, worse], Verdict.opposite)]
    [shown] = verdict_table(judged, endpoints_table(judged)).shown
    assert shown["Verdict"] == "opposite"
    assert shown["Effect"].startswith("PSNR [dB]: −0.510 [")
    assert shown["Effect"].endswith("; 1 of 2 endpoints")


@pytest.mark.parametrize(
    ("secondary", "said"),
    [([], "not run"), ([0.3, 0.31, 0.29], "opposite"), ([0.0, 0.001, -0.001], "supported")],
)
def test_a_verdict_by_the_autoencoder_alone_says_what_came_of_generators(
    secondary: list[float], said: str
):
    primary = [outcome(20, 0, [0.5, 0.51, 0.49]), outcome(20, 1, [0.5, 0.51, 0.49])]
    judged = [Judged(CLAIMS[20], [*primary, outcome(20, 2, secondary)], Verdict.supported)]
    [shown] = verdict_table(judged, endpoints_table(judged)).shown
    assert shown["Effect"].endswith(f"; 1 of 2 endpoints; DiT (secondary): {said}")


def test_a_verdict_by_generators_says_nothing_of_secondary_ones():
    judged = [
        Judged(CLAIMS[3], [outcome(3, 0, [0.3, 0.3, 0.3]), outcome(3, 1, [])], Verdict.supported)
    ]
    [shown] = verdict_table(judged, endpoints_table(judged)).shown
    assert "secondary" not in shown["Effect"]


def test_what_did_not_run_is_beside_nothing():
    assert beside(3, outcome(3, 0, [])) is None


def test_a_claim_shows_what_no_earlier_one_has():
    values = [0.30, 0.31, 0.29]
    third = Judged(CLAIMS[3], [outcome(3, 0, values)], Verdict.supported)
    fifth = Judged(CLAIMS[5], [outcome(5, 0, values), outcome(5, 1, values)], Verdict.supported)
    judged = [third, fifth]
    effects = [row["Effect"] for row in verdict_table(judged, endpoints_table(judged)).shown]
    assert effects[0].startswith("DiT FD in-domain")
    assert effects[1].startswith("DiT, scaling fixed, FD in-domain")


def test_an_effect_that_the_second_extractor_contradicts_says_so():
    made = outcome(3, 0, [0.30, 0.31, 0.29])
    made.contradicted = True
    judged = [Judged(CLAIMS[3], [made], Verdict.undecided)]
    [row] = verdict_table(judged, endpoints_table(judged)).shown
    assert row["Effect"].endswith(": the second extractor has another sign")
