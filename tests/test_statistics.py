import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from study.statistics import (
    Curve,
    Reach,
    SpeedUp,
    estimate,
    holm_levels,
    level_at,
    mean_level,
    paired_gain,
    reach,
    seeds_needed,
    speed_up,
    t_interval,
    tail_probability,
)


def test_t_interval_is_the_textbook_one():
    # t_{2, 0.975} = 4.302653, s = 1, n = 3
    low, high = t_interval([1.0, 2.0, 3.0]) or (0, 0)
    half = 4.302653 / math.sqrt(3)
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-6)


def test_t_interval_widens_with_level():
    narrow, wide = t_interval([1.0, 2.0, 4.0], 0.8), t_interval([1.0, 2.0, 4.0], 0.99)
    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_values_have_no_interval(values: list[float]):
    assert t_interval(values) is None


def test_a_constant_ratio_is_an_exact_gain():
    gain = paired_gain([0.8, 1.6, 4.0], [1.0, 2.0, 5.0])
    assert gain == pytest.approx((0.2, 0.2, 0.2, 3))


def test_gain_is_that_of_the_geometric_mean():
    assert paired_gain([1.0, 1.0], [2.0, 8.0]).value == pytest.approx(1 - 1 / 4)


def test_gain_lies_in_its_interval_and_a_worse_treatment_has_a_negative_one():
    gain = paired_gain([1.2, 1.15, 1.25], [1.0, 1.0, 1.0])
    assert gain.low is not None
    assert gain.high is not None
    assert gain.low < gain.value < gain.high < 0


def test_one_seed_has_a_gain_without_interval():
    assert paired_gain([0.5], [1.0]) == (0.5, None, None, 1)


@pytest.mark.parametrize(
    ("treatment", "control"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])]
)
def test_gain_refuses_what_has_no_log_ratio(treatment: list[float], control: list[float]):
    with pytest.raises(ValueError, match=r"pairs|positive"):
        paired_gain(treatment, control)


@pytest.mark.parametrize("n", [3, 5])
def test_the_interval_over_seeds_covers_the_gain(n: int):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        # Seeds differ by far more than arms do; pairing takes that out.
        seeds = 0.5 * rng.normal(size=n)
        control = np.exp(seeds + 0.02 * rng.normal(size=n))
        treatment = 0.93 * np.exp(seeds + 0.03 * rng.normal(size=n))
        gain = paired_gain(treatment.tolist(), control.tolist())
        assert gain.low is not None
        assert gain.high is not None
        covered.append(gain.low <= 0.07 <= gain.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_an_estimate_is_the_mean_with_its_interval():
    assert estimate([1.0, 2.0, 3.0]) == (2, *t_interval([1.0, 2.0, 3.0]), 3)  # type: ignore[misc]
    assert estimate([4.0]) == (4, None, None, 1)


def test_the_tail_agrees_with_the_interval():
    values = [0.1, 0.25, 0.2, 0.3]
    low, high = t_interval(values, 0.9) or (0, 0)
    assert tail_probability(values, low) == pytest.approx(0.05)
    assert tail_probability(values, high) == pytest.approx(0.95)


def test_values_without_spread_leave_no_doubt():
    assert [tail_probability([0.2, 0.2], bound) for bound in (0.1, 0.2, 0.3)] == [0, 1, 1]


def test_holm_shares_the_error_until_an_interval_decides_nothing():
    levels = holm_levels([0.004, 0.9, 0.02, 0.04])
    # 0.05 / 4, / 3 and there 0.02 is more: the rest stay at a third.
    third = 1 - 0.05 / 3
    assert levels == pytest.approx([1 - 0.05 / 4, third, third, third])
    assert holm_levels([0.04]) == pytest.approx([0.95])
    assert holm_levels([0.001, 0.001]) == pytest.approx([0.975, 0.95])
    assert holm_levels([]) == []


def test_a_family_of_true_nulls_is_decided_wrongly_in_at_most_5_percent():
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(600):
        tests = rng.normal(size=(5, 4)).tolist()
        p_values = [
            2 * min(tail_probability(test, 0), tail_probability([-v for v in test], 0))
            for test in tests
        ]
        intervals = (
            t_interval(test, level)
            for test, level in zip(tests, holm_levels(p_values), strict=True)
        )
        wrong += any(low > 0 or high < 0 for low, high in filter(None, intervals))
    assert 0.02 <= wrong / 600 <= 0.07


STEPS = (100, 200, 400, 800, 1600, 3200)
FALLING = Curve(STEPS, (9.0, 8.0, 7.0, 6.0, 5.0, 4.0))


def test_a_level_is_interpolated_in_logarithms():
    curve = Curve(STEPS, tuple(100 * step**-0.5 for step in STEPS))
    for amount in (100, 150, 1000, 3200):
        assert level_at(curve, amount) == pytest.approx(100 * amount**-0.5)
    assert level_at(curve, 99) is None
    assert level_at(curve, 3201) is None
    assert level_at(Curve((5,), (2.0,)), 5) == 2


def test_the_mean_level_is_that_of_all_seeds_or_of_none():
    other = Curve((200, 3200), (5.0, 2.0))
    assert mean_level([FALLING, other], 1) == 3
    assert mean_level([FALLING, other], 0.0625) == pytest.approx(6.5)
    assert mean_level([FALLING, other], 0.05) is None
    assert mean_level([], 1) is None


def test_a_level_is_reached_where_the_curve_first_crosses_it():
    assert reach(Curve((1, 10, 100), (8.0, 2.0, 4.0)), 4.0).amount == pytest.approx(10**0.5)
    assert reach(Curve((1, 10, 100), (8.0, 9.0, 3.0)), 8.5).censored == "before"
    assert reach(FALLING, 4.0) == (3200, "")


def test_a_curve_is_never_extrapolated():
    assert reach(FALLING, 3.9) == (3200, "after")
    assert reach(FALLING, 9.1) == (100, "before")


def sped_up(rng: np.random.Generator, factor: float, fraction: float, seeds: int) -> SpeedUp:
    """Measured where the treatment is `factor` times as fast; seeds shift both arms alike."""
    steps = tuple(np.geomspace(20, 4000, 16).tolist())
    shared = 0.03 * rng.normal(size=(seeds, 1))
    control, treatment = (
        50
        * np.exp(shared + 0.01 * rng.normal(size=(seeds, 1)) + 0.004 * rng.normal(size=(seeds, 16)))
        * (speed * np.array(steps) + 30) ** -0.45
        for speed in (1, factor)
    )
    ours, theirs = (
        [Curve(steps, tuple(row)) for row in arm.tolist()] for arm in (treatment, control)
    )
    level = mean_level(theirs, fraction)
    assert level is not None
    return speed_up([reach(c, level) for c in theirs], [reach(c, level) for c in ours])


@pytest.mark.parametrize("fraction", [0.25, 0.5])
@pytest.mark.parametrize("factor", [1.2, 2.0, 7.0])
def test_known_speed_ups_are_recovered_with_honest_intervals(factor: float, fraction: float):
    rng = np.random.default_rng(3)
    found = [sped_up(rng, factor, fraction, 4) for _ in range(400)]
    assert {each.bound for each in found} == {""}
    mean = math.exp(np.mean([math.log(each.value or 0) for each in found]))
    assert mean == pytest.approx(factor, rel=0.02)
    covered = [each.low <= factor <= each.high for each in found]  # type: ignore[operator]
    assert 0.92 <= np.mean(covered) <= 0.985


def test_at_the_end_of_the_run_some_controls_are_censored_and_the_result_is_a_lower_bound():
    rng = np.random.default_rng(4)
    for factor in (1.2, 2.0):
        found = [sped_up(rng, factor, 1.0, 4) for _ in range(100)]
        # A seed above the mean never gets there.
        assert {each.bound for each in found} == {"at least"}
        assert all((each.low, each.high) == (None, None) for each in found)
        values = [each.value or 0 for each in found]
        assert np.median(values) < factor * 1.01


def test_a_treatment_that_never_gets_there_is_an_upper_bound():
    found = sped_up(np.random.default_rng(5), 0.2, 0.5, 4)
    assert set(found.bounds) == {"at most"}
    assert found.value is not None
    assert 0.2 < found.value < 0.6


def test_a_speed_up_is_the_geometric_mean_of_the_seeds():
    found = speed_up([Reach(100), Reach(800)], [Reach(50), Reach(100)])
    assert found.factors == (2, 8)
    assert found.value == pytest.approx(4)
    assert found.low is not None
    assert found.low < 4


@pytest.mark.parametrize(
    ("control", "treatment", "bound"),
    [
        (Reach(100), Reach(10), ""),
        (Reach(100, "after"), Reach(10), "at least"),
        (Reach(100), Reach(10, "before"), "at least"),
        (Reach(100, "after"), Reach(10, "before"), "at least"),
        (Reach(100, "before"), Reach(10), "at most"),
        (Reach(100), Reach(10, "after"), "at most"),
        (Reach(100, "before"), Reach(10, "after"), "at most"),
        (Reach(100, "after"), Reach(10, "after"), "unknown"),
        (Reach(100, "before"), Reach(10, "before"), "unknown"),
    ],
)
def test_a_censored_curve_bounds_the_speed_up(control: Reach, treatment: Reach, bound: str):
    found = speed_up([Reach(50), control], [Reach(10), treatment])
    assert found.bounds == ("", bound)
    assert found.bound == bound
    assert found.factors == (5, 10)
    assert (found.low is None) == bool(bound)
    assert (found.value is None) == (bound == "unknown")
    if found.value is not None:
        assert found.value == pytest.approx(50**0.5)


def test_bounds_from_both_sides_say_nothing():
    sides = [Reach(100, "after"), Reach(100, "before")]
    found = speed_up(sides, [Reach(10), Reach(10)])
    assert (found.value, found.bound, found.bounds) == (None, "unknown", ("at least", "at most"))


@pytest.mark.parametrize("pairs", [([], []), ([Reach(1)], [])])
def test_a_speed_up_needs_pairs(pairs: tuple[list[Reach], list[Reach]]):
    with pytest.raises(ValueError, match="no pairs"):
        speed_up(*pairs)


def test_the_number_of_seeds_is_the_least_at_which_the_interval_is_narrow_enough() -> None:
    values = [0.10, 0.13, 0.08, 0.12]
    n = seeds_needed(values, 0.02)
    assert n is not None

    def half(n: int) -> float:
        # As many values with the same standard deviation.
        spread = np.std(values, ddof=1)
        return float(scipy_stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n))

    assert half(n) <= 0.02 < half(n - 1)
    assert seeds_needed([v + 5 for v in values], 0.02) == n
    assert seeds_needed([1000 * v for v in values], 0.02) is None
    assert seeds_needed([1.0, 1.0], 0.02) == 2
