"""Intervals over seeds: of paired gains, of several at once, of the speed-up of convergence.

Nothing here knows about files or metrics.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import stdev
from typing import NamedTuple


class Estimate(NamedTuple):
    """A mean over n seeds, or what it maps to; `low` and `high` are None without an interval."""

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


def seeds_needed(values: Sequence[float], half_width: float, level: float = 0.95) -> int | None:
    """Least number of values at which their t interval is as narrow, by the spread of those given.

    Their mean has no say, so that a number of seeds chosen by it favours no outcome.

    Args:
        values: at least two, one per seed.
        half_width: of the interval, on the scale of the values.
        level: coverage, in (0, 1).

    Returns:
        At least 2; None where a thousand are too few.
    """
    from scipy.special import stdtrit

    deviation = stdev(values)
    for n in range(2, 1001):
        if stdtrit(n - 1, (1 + level) / 2) * deviation / math.sqrt(n) <= half_width:
            return n
    return None


def estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean of at least one value, one per seed, with its Student-t interval."""
    low, high = t_interval(values, level) or (None, None)
    return Estimate(math.fsum(values) / len(values), low, high, len(values))


def tail_probability(values: Sequence[float], bound: float) -> float:
    """One-sided p of the t test that the mean is at most `bound`; at least two values."""
    from scipy.special import stdtr

    n = len(values)
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    if error == 0:
        return 0.0 if mean > bound else 1.0
    return float(stdtr(n - 1, (bound - mean) / error))


def holm_levels(p_values: Sequence[float], alpha: float = 0.05) -> list[float]:
    """Coverage of each of m intervals so that with 1 - alpha none of them decides wrongly.

    Holm's step-down: in the order of their p the i-th gets 1 - alpha / (m - i + 1); from the first
    whose p exceeds its share of alpha on, the rest keep that share.

    Args:
        p_values: the smallest alpha at which each interval decides its question.
        alpha: of the family.
    """
    levels, share = [0.0] * len(p_values), 0.0
    stopped = False
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if not stopped:
            share = alpha / (len(p_values) - rank)
            stopped = p_values[index] > share
        levels[index] = 1 - share
    return levels


def paired_gain(treatment: Sequence[float], control: Sequence[float]) -> Estimate:
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
        return Estimate(value, None, None, len(ratios))
    low, high = interval
    return Estimate(value, 1 - math.exp(high), 1 - math.exp(low), len(ratios))


class Reach(NamedTuple):
    """When a curve reaches a level."""

    amount: float
    """Training by then; a bound where it was not seen."""
    censored: str = ""
    """`before`: already at the first point; `after`: not by the last; empty: in between."""


class Curve(NamedTuple):
    """A quantity against training; all numbers positive, amounts ascending."""

    amounts: tuple[float, ...]
    values: tuple[float, ...]


def level_at(curve: Curve, amount: float) -> float | None:
    """Value of a curve at an amount, by linear interpolation of logarithms; None outside it."""
    if not curve.amounts[0] <= amount <= curve.amounts[-1]:
        return None
    for (x, y), (x2, y2) in pairwise(zip(*curve, strict=True)):
        if x <= amount <= x2:
            share = math.log(amount / x) / math.log(x2 / x)
            return y * (y2 / y) ** share
    return curve.values[0]


def mean_level(curves: Sequence[Curve], fraction: float) -> float | None:
    """Mean value of curves after a share of their run; None where one of them begins later."""
    levels = [level_at(curve, fraction * curve.amounts[-1]) for curve in curves]
    known = [level for level in levels if level is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(levels) else None


def reach(curve: Curve, level: float) -> Reach:
    """First amount at which a curve is at or below a level; never extrapolated."""
    if curve.values[0] <= level:
        return Reach(curve.amounts[0], "before")
    for (x, y), (x2, y2) in pairwise(zip(*curve, strict=True)):
        if y2 <= level:
            share = math.log(y / level) / math.log(y / y2)
            return Reach(x * (x2 / x) ** share)
    return Reach(curve.amounts[-1], "after")


class SpeedUp(NamedTuple):
    """Geometric mean over seeds of the factor by which the treatment needs less."""

    factors: tuple[float, ...]
    """Of each seed; a bound where a curve was censored."""
    bounds: tuple[str, ...]
    """Of each seed: empty, `at least`, `at most` or `unknown`."""
    value: float | None
    """None where a seed says nothing, or seeds bound it from different sides."""
    bound: str
    low: float | None
    """None with a bound or with one seed."""
    high: float | None


def speed_up(control: Sequence[Reach], treatment: Sequence[Reach], level: float = 0.95) -> SpeedUp:
    """Speed-up of pairs of curves, with the t interval of the mean log factor.

    A curve that does not cross the level bounds its seed's factor. The bound stays in the mean,
    which then is a bound itself, without an interval: how far beyond it the factor lies is not
    known.

    Args:
        control: when the control reached the level, one per seed.
        treatment: the same seeds in the same order.
        level: of the interval.

    Raises:
        ValueError: no pair, or unequal lengths.
    """
    if not control or len(control) != len(treatment):
        raise ValueError(f"{len(treatment)} treatment and {len(control)} control curves: no pairs")
    pairs = list(zip(control, treatment, strict=True))
    bounds = tuple(_bound(ours.censored, theirs.censored) for theirs, ours in pairs)
    factors = tuple(theirs.amount / ours.amount for theirs, ours in pairs)
    logs = [math.log(factor) for factor in factors]
    sides = set(bounds) - {""}
    if len(sides) > 1 or "unknown" in sides:
        return SpeedUp(factors, bounds, None, "unknown", None, None)
    value = math.exp(math.fsum(logs) / len(logs))
    interval = None if sides else t_interval(logs, level)
    low, high = (math.exp(end) for end in interval) if interval else (None, None)
    return SpeedUp(factors, bounds, value, "".join(sides), low, high)


def _bound(treatment: str, control: str) -> str:
    """What is known of control over treatment when either is only bounded."""
    if treatment and treatment == control:
        return "unknown"
    if treatment == "before" or control == "after":
        return "at least"
    return "at most" if treatment == "after" or control == "before" else ""
