"""Features to statistics to distances.

What is done in float64 is done on the GPU where the caller names one; the numbers are the same.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.config import StudyError

Array = NDArray[np.floating]
CPU = torch.device("cpu")
EXTRAPOLATION_SIZES = 8
"""Sample sizes of the fit for infinitely many samples."""
_RANK = 1e-12
"""Share of the largest eigenvalue below which one is zero."""


@dataclass(slots=True)
class Statistics:
    """Mean (D) and covariance (D D) of features, float64, and how many there were."""

    mean: Array
    covariance: Array
    count: int
    _root: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def root(self, device: torch.device = CPU) -> Tensor:
        """Symmetric square root of the covariance, D D; computed once."""
        root = self._root
        if root is None or root.device.type != device.type:
            values, vectors = torch.linalg.eigh(torch.from_numpy(self.covariance).to(device))
            self._root = root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        return root


def statistics(features: Array, device: torch.device = CPU) -> Statistics:
    """Mean and unbiased covariance of features N D.

    Raises:
        StudyError: fewer than two features, or all the same.
    """
    mean, covariance = _moments(torch.from_numpy(features).to(device).double())
    return Statistics(mean.cpu().numpy(), covariance.cpu().numpy(), len(features))


def frechet_distance(ours: Statistics, theirs: Statistics, device: torch.device = CPU) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S2^1/2 S1 S2^1/2)^1/2) [1706.08500, Eq. 6].

    The symmetric form needs eigenvalues of symmetric matrices only, so that it is real for
    singular covariances too.
    """
    mean, covariance = (torch.from_numpy(a).to(device) for a in (ours.mean, ours.covariance))
    return _distance(mean, covariance, theirs)


def kernel_distance(features: Array, reference: Array, subset_size: int, seed: int) -> float:
    """KID: polynomial-kernel MMD^2, mean over 100 subsets [1801.01401, Sec. 4], by torch-fidelity.

    Args:
        features: N D.
        reference: M D.
        subset_size: images per subset; lowered to N and M where those are smaller.
        seed: of the subsets.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    size = min(subset_size, len(features), len(reference))
    result = kid_features_to_metric(
        torch.from_numpy(features).double(),
        torch.from_numpy(reference).double(),
        kid_subsets=100,
        kid_subset_size=size,
        rng_seed=seed,
        verbose=False,
    )
    return float(result[KEY_METRIC_KID_MEAN])


def frechet_standard_error(
    features: Array, reference: Statistics, device: torch.device = CPU
) -> float:
    """Standard error of the distance over samples, by its influence function.

    A sample x counts by 2 (m1 - m2)(x - m1) + (x - m1)(1 - T)(x - m1), T = S2^1/2 (S2^1/2 S1
    S2^1/2)^-1/2 S2^1/2: the derivative of the distance by the samples' distribution. Its spread is
    what a bootstrap's tends to with many samples; with few, a bootstrap's is up to twice too large.

    The distance ± 1.96 of it is an interval for the expected distance at this n. In simulations
    with normal and heavier tails it covers 94 to 99 % in 32 and 64 dimensions, from 2 samples a
    dimension on, and 92 to 95 % in 4 and 8 from 8 samples a dimension on. Where both distributions
    are the same, the derivative is zero, and what remains overstates the error by 1.3 to 1.5.

    Args:
        features: N D.
        reference: of the other set, without error.
        device: where to compute.
    """
    rows = torch.from_numpy(features).to(device).double()
    mean, covariance = _moments(rows)
    root = reference.root(rows.device)
    values, vectors = torch.linalg.eigh(root @ covariance @ root)
    # Directions that no sample or no reference takes have no map between them.
    there = values > _RANK * values[-1]
    inverse = torch.where(there, values, 1).rsqrt() * there
    transport = root @ (vectors * inverse) @ vectors.T @ root
    centred = rows - mean
    shift = mean - torch.from_numpy(reference.mean).to(device)
    influence = 2 * centred @ shift + (centred * (centred - centred @ transport)).sum(1)
    return float(influence.std() / len(rows) ** 0.5)


def extrapolated_distance(
    features: Array,
    reference: Statistics,
    least: int,
    seed: int,
    device: torch.device = CPU,
) -> tuple[float, list[int]] | None:
    """Fréchet distance at infinitely many samples: the linear fit in 1/n at 1/n = 0 [1911.07023].

    The bias of the distance is about proportional to 1/n. At each n the distance is the mean over
    the disjoint parts of one permutation; the bias from the reference's own size stays.

    Args:
        features: N D.
        reference: of the other set.
        least: smallest n; n is also at least a fifth of N.
        seed: of the permutation.
        device: where to compute.

    Returns:
        The distance and the n used; None where `least` leaves no two halves.
    """
    count = len(features)
    smallest = max(least, count // 5)
    if smallest > count // 2:
        return None
    # Even in 1/n, which is what is fitted.
    inverse = np.linspace(1 / smallest, 1 / count, EXTRAPOLATION_SIZES)
    sizes = sorted({round(1 / value) for value in inverse})
    order = np.random.default_rng(seed).permutation(count)
    rows = torch.from_numpy(features[order]).to(device).double()
    means = [
        np.mean(
            [
                _distance(*_moments(rows[first : first + n]), reference)
                for first in range(0, count - n + 1, n)
            ]
        )
        for n in sizes
    ]
    _, constant = np.polyfit([1 / n for n in sizes], means, 1)
    return float(constant), sizes


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    if len(rows) < 2:
        raise StudyError(f"{len(rows)} features: must be at least 2 for a distance")
    mean = rows.mean(0)
    centred = rows - mean
    if bool((rows == rows[0]).all()):
        raise StudyError(f"{len(rows)} features are all identical: no distance")
    return mean, centred.T @ centred / (len(rows) - 1)


def _distance(mean: Tensor, covariance: Tensor, theirs: Statistics) -> float:
    root = theirs.root(mean.device)
    overlap = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum()
    shift = (mean - torch.from_numpy(theirs.mean).to(mean.device)).square().sum()
    # The traces last: their difference to the overlap is what cancels.
    traces = covariance.trace() + float(np.trace(theirs.covariance))
    return float(shift + (traces - 2 * overlap))
