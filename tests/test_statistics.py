import math

import pytest

from study.statistics import paired_gain, t_interval


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
