"""Intervals over seeds and the paired relative gain; nothing here knows about files or metrics."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Gain(NamedTuple):
    """Relative gain of a treatment; `low` and `high` are None where no interval exists."""

    value: float
    low: float | None
    high: float | None
    n: int


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student-t interval of the mean of independent values.

    mean ± t_{n-1, (1+level)/2} · s / √n, with s the sample standard deviation (n - 1 degrees).

    Args:
        values: one per seed.
        level: coverage, in (0, 1).

    Returns:
        Lower and upper end; None with fewer than two values.
    """
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * deviation / math.sqrt(n)
    return mean - half, mean + half


def paired_gain(treatment: Sequence[float], control: Sequence[float]) -> Gain:
    """Share by which the treatment lowers a positive quantity, paired by seed.

    1 - exp(mean_i(ln t_i - ln c_i)); the t interval of the mean log ratio, mapped the same way.

    Args:
        treatment: values t_i, one per seed, lower is better.
        control: values c_i of the same seeds, in the same order.

    Raises:
        ValueError: no pair, unequal lengths, or a value that is not positive.
    """
    if not treatment or len(treatment) != len(control):
        raise ValueError(f"{len(treatment)} treatment and {len(control)} control values: no pairs")
    if min(*treatment, *control) <= 0:
        raise ValueError("a relative gain needs positive values")
    ratios = [math.log(t) - math.log(c) for t, c in zip(treatment, control, strict=True)]
    value = 1 - math.exp(math.fsum(ratios) / len(ratios))
    interval = t_interval(ratios)
    if interval is None:
        return Gain(value, None, None, len(ratios))
    low, high = interval
    return Gain(value, 1 - math.exp(high), 1 - math.exp(low), len(ratios))
