"""Intrinsic dimension of a set of points, from the distances to two nearest neighbours."""

import torch
from torch import Tensor

from study.config import StudyError

_ROWS = 256
"""Points whose distances to all others are in memory at once."""


def two_nn(points: Tensor, discarded: float = 0.1) -> float:
    """Intrinsic dimension by TwoNN [Facco et al. 2017, Sci. Rep. 7:12140, steps 1 to 5].

    mu = r2 / r1 of a point's two smallest distances has F(mu) = 1 - mu^-d where the density is
    constant over both. d is the slope of -log(1 - F) on log mu through the origin, with F = i / N
    for the i-th smallest mu. Exact duplicates count once. Time grows as N^2 D.

    Args:
        points: N D.
        discarded: share of the largest mu that the fit leaves out, in [0, 1).

    Raises:
        StudyError: a value that is not finite, fewer than 3 distinct points, or none to fit.
    """
    if not bool(torch.isfinite(points).all()):
        raise StudyError(f"intrinsic dimension of {len(points)} points: not all are finite")
    distinct = torch.unique(points.double(), dim=0)
    count = len(distinct)
    if count < 3:
        raise StudyError(f"{count} distinct points: must be at least 3 for a dimension")
    # The last i has F = 1, whose logarithm is infinite.
    kept = min(int(count * (1 - discarded)), count - 1)
    log_mu = _log_ratios(distinct).sort().values[:kept]
    share = torch.arange(1, kept + 1, dtype=torch.float64, device=points.device) / count
    if not bool(log_mu.sum() > 0):
        raise StudyError(f"{kept} of {count} points: two nearest neighbours are equally far")
    return float(-(log_mu * torch.log1p(-share)).sum() / log_mu.square().sum())


def _log_ratios(points: Tensor) -> Tensor:
    """log(r2 / r1) of each of N distinct points."""
    ratios = []
    for rows in points.split(_ROWS):
        # From differences, not from products: near duplicates would lose their digits.
        distances = torch.cdist(rows, points, compute_mode="donot_use_mm_for_euclid_dist")
        _, first, second = distances.topk(3, largest=False).values.unbind(1)
        ratios.append((second / first).log())
    return torch.cat(ratios)
