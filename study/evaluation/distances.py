"""Features to statistics to distances."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(slots=True)
class Statistics:
    """Mean (D) and covariance (D D) of features, float64, and how many there were."""

    mean: Array
    covariance: Array
    count: int


def statistics(features: Array) -> Statistics:
    """Mean and unbiased covariance of features N D.

    Raises:
        RuntimeError: fewer than two features, or all the same.
    """
    if len(features) < 2:
        raise RuntimeError(f"{len(features)} features: must be at least 2 for a distance")
    features = features.astype(np.float64)
    covariance = np.cov(features, rowvar=False)
    if not np.trace(covariance) > 0:
        raise RuntimeError(f"{len(features)} features are all identical: no distance")
    return Statistics(features.mean(0), covariance, len(features))


def frechet_distance(ours: Statistics, theirs: Statistics) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2) [1706.08500, Eq. 6].

    The symmetric form needs eigenvalues of symmetric matrices only, so that it is real for
    singular covariances too.
    """
    values, vectors = np.linalg.eigh(ours.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ theirs.covariance @ root)
    overlap = np.sqrt(np.clip(cross, 0, None)).sum()
    shift = np.square(ours.mean - theirs.mean).sum()
    return float(shift + np.trace(ours.covariance) + np.trace(theirs.covariance) - 2 * overlap)


def kernel_distance(features: Array, reference: Array, subset_size: int, seed: int) -> float:
    """KID: polynomial-kernel MMD^2, mean over 100 subsets [1801.01401, Sec. 4], by torch-fidelity.

    Args:
        features: N D.
        reference: M D.
        subset_size: images per subset; lowered to N and M where those are smaller.
        seed: of the subsets.
    """
    import torch
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    size = min(subset_size, len(features), len(reference))
    result = kid_features_to_metric(
        torch.from_numpy(features),
        torch.from_numpy(reference),
        kid_subsets=100,
        kid_subset_size=size,
        rng_seed=seed,
        verbose=False,
    )
    return float(result[KEY_METRIC_KID_MEAN])


def frechet_standard_error(
    features: Array, reference: Statistics, resamples: int, seed: int
) -> float:
    """Bootstrap standard error of the distance over samples.

    A percentile interval would repeat the distance's upward bias; its spread is of use, its
    location is not.
    """
    rng = np.random.default_rng(seed)
    values = [
        frechet_distance(
            statistics(features[rng.integers(len(features), size=len(features))]), reference
        )
        for _ in range(resamples)
    ]
    return float(np.std(values, ddof=1))
