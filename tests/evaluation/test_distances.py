import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from study.config import StudyError
from study.evaluation.distances import (
    Statistics,
    extrapolated_distance,
    frechet_distance,
    frechet_standard_error,
    kernel_distance,
    statistics,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def correlated(rng: np.random.Generator, count: int, width: int = 16) -> np.ndarray:
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + rng.normal(
        size=width
    )


def test_equal_covariances_leave_the_squared_mean_distance(rng: np.random.Generator) -> None:
    features, shift = correlated(rng, 100), rng.normal(size=16)
    distance = frechet_distance(statistics(features), statistics(features + shift))
    assert distance == pytest.approx(np.square(shift).sum(), rel=1e-9)


def test_diagonal_covariances_have_a_closed_form() -> None:
    ours = Statistics(np.array([0.0, 1.0]), np.diag([4.0, 9.0]), 10)
    theirs = Statistics(np.array([2.0, 1.0]), np.diag([1.0, 16.0]), 10)
    # |(2, 0)|^2 + (2 - 1)^2 + (3 - 4)^2
    assert frechet_distance(ours, theirs) == pytest.approx(6)


@pytest.mark.parametrize("count", [12, 500])
def test_frechet_distance_equals_torch_fidelitys(rng: np.random.Generator, count: int) -> None:
    # With 12 features of 16 dimensions the covariance is singular.
    ours, theirs = correlated(rng, count), correlated(rng, count)
    expected = fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(f)) for f in (ours, theirs)), verbose=False
    )["frechet_inception_distance"]
    distance = frechet_distance(statistics(ours), statistics(theirs))
    assert distance == pytest.approx(expected, rel=1e-6)


def test_identical_features_are_at_no_distance(rng: np.random.Generator) -> None:
    features = correlated(rng, 200)
    assert frechet_distance(statistics(features), statistics(features)) == pytest.approx(
        0, abs=1e-9
    )


def test_frechet_distance_is_symmetric(rng: np.random.Generator) -> None:
    ours, theirs = statistics(correlated(rng, 100)), statistics(correlated(rng, 80))
    there, back = frechet_distance(ours, theirs), frechet_distance(theirs, ours)
    assert there == pytest.approx(back, rel=1e-9)


def test_statistics_are_numpys_in_double_precision(rng: np.random.Generator) -> None:
    features = correlated(rng, 50).astype(np.float32)
    result = statistics(features)
    assert (result.mean.dtype, result.covariance.dtype) == (np.float64, np.float64)
    assert result.count == 50
    centred = features.astype(np.float64) - result.mean
    np.testing.assert_allclose(result.covariance, centred.T @ centred / 49, rtol=1e-9)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_features_are_refused(count: int) -> None:
    with pytest.raises(StudyError, match=f"{count} features: must be at least 2"):
        statistics(np.zeros((count, 4)))


def test_identical_features_have_no_statistics() -> None:
    with pytest.raises(StudyError, match="10 features are all identical"):
        statistics(np.ones((10, 4)))


def test_kernel_distance_equals_torch_fidelitys(rng: np.random.Generator) -> None:
    ours, theirs = correlated(rng, 60), correlated(rng, 70)
    expected = kid_features_to_metric(
        torch.from_numpy(ours),
        torch.from_numpy(theirs),
        kid_subsets=100,
        kid_subset_size=20,
        rng_seed=3,
        verbose=False,
    )["kernel_inception_distance_mean"]
    assert kernel_distance(ours, theirs, 20, 3) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_of_single_precision_is_that_of_double(rng: np.random.Generator) -> None:
    # Features that hardly differ: in single precision 1e-7 of the kernel's 1 would be a tenth.
    ours, theirs = 1e-3 * rng.normal(size=(2, 60, 8)).astype(np.float32)
    expected = kernel_distance(ours.astype(float), theirs.astype(float), 20, 0)
    assert kernel_distance(ours, theirs, 20, 0) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_whole_sets_is_the_unbiased_estimate(rng: np.random.Generator) -> None:
    ours, theirs = rng.normal(size=(9, 4)), rng.normal(size=(9, 4)) + 1

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / 4 + 1) ** 3

    off = ~np.eye(9, dtype=bool)
    expected = kernel(ours, ours)[off].mean() + kernel(theirs, theirs)[off].mean()
    expected -= 2 * kernel(ours, theirs).mean()
    # A subset as large as the set is the set, whatever the subset.
    assert kernel_distance(ours, theirs, 1000, 0) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_one_distribution_is_near_zero(rng: np.random.Generator) -> None:
    ours, theirs = rng.normal(size=(2, 300, 8))
    assert abs(kernel_distance(ours, theirs, 100, 0)) < 0.02
    assert kernel_distance(ours, theirs + 1, 100, 0) > 1


def test_standard_error_is_the_spread_over_fresh_samples(rng: np.random.Generator) -> None:
    reference = statistics(rng.normal(size=(2000, 4)))
    samples = rng.normal(size=(300, 150, 4)) + 0.5
    truth = np.std([frechet_distance(statistics(s), reference) for s in samples], ddof=1)
    estimates = [frechet_standard_error(each, reference) for each in samples]
    assert np.mean(estimates) == pytest.approx(truth, rel=0.12)


def test_standard_error_is_the_jackknifes(rng: np.random.Generator) -> None:
    reference = statistics(correlated(rng, 500, 6))
    rows = correlated(rng, 2000, 6) * 1.2 + 0.3
    left_out = [
        frechet_distance(statistics(np.delete(rows, i, 0)), reference) for i in range(len(rows))
    ]
    jackknife = np.std(left_out) * (len(rows) - 1) ** 0.5
    assert frechet_standard_error(rows, reference) == pytest.approx(jackknife, rel=0.01)


def test_standard_error_of_a_shift_is_that_of_the_mean(rng: np.random.Generator) -> None:
    # Covariances that are equal do not count: what is left is 2 shift . (x - mean).
    rows = rng.normal(size=(400, 5))
    own = statistics(rows)
    reference = Statistics(own.mean - [3, 0, 0, 0, 0], own.covariance, 10**6)
    expected = 2 * 3 * rows[:, 0].std(ddof=1) / 400**0.5
    assert frechet_standard_error(rows, reference) == pytest.approx(expected, rel=1e-6)


def test_samples_without_full_rank_have_a_standard_error(rng: np.random.Generator) -> None:
    reference = statistics(rng.normal(size=(100, 16)))
    assert 0 < frechet_standard_error(rng.normal(size=(8, 16)), reference) < 100


@pytest.mark.parametrize(("dimension", "per_dimension"), [(16, 8), (32, 2), (32, 8), (32, 30)])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_the_interval_over_samples_covers_the_expected_distance(
    dimension: int, per_dimension: int, tails: str
) -> None:
    # 2 a dimension are the fewest that are allowed.
    rng = np.random.default_rng(1)
    size = (600, per_dimension * dimension, dimension)
    drawn = rng.normal(size=size) if tails == "normal" else rng.standard_t(6, size=size)
    reference = Statistics(np.zeros(dimension), np.eye(dimension), 10**6)
    samples = drawn / drawn.std() * np.linspace(0.7, 1.4, dimension) + 0.3
    distances = np.array([frechet_distance(statistics(each), reference) for each in samples])
    errors = np.array([frechet_standard_error(each, reference) for each in samples])
    # Of this many the mean is the expected distance at this n, bias included.
    covered = abs(distances - distances.mean()) <= 1.96 * errors
    assert 0.93 <= covered.mean() <= 0.99


def test_the_interval_over_samples_covers_in_few_dimensions_too() -> None:
    rng = np.random.default_rng(1)
    reference = Statistics(np.zeros(4), np.eye(4), 10**6)
    samples = rng.normal(size=(1500, 150, 4)) * [1, 1.3, 0.8, 1] + [0.4, 0, 0, 0]
    distances = [frechet_distance(statistics(each), reference) for each in samples]
    covered = [
        abs(distance - np.mean(distances)) <= 1.96 * frechet_standard_error(each, reference)
        for each, distance in zip(samples[:600], distances, strict=False)
    ]
    assert 0.93 <= np.mean(covered) <= 0.99


def test_the_extrapolated_distance_has_little_of_the_bias() -> None:
    rng = np.random.default_rng(2)
    reference = Statistics(np.zeros(8), np.eye(8), 10**6)
    truth = 8 * 0.3**2
    plain, extrapolated = [], []
    for sample in rng.normal(size=(60, 400, 8)) + 0.3:
        plain.append(frechet_distance(statistics(sample), reference))
        found = extrapolated_distance(sample, reference, 16, 0)
        assert found is not None
        extrapolated.append(found[0])
    bias = np.mean(plain) - truth
    error = np.std(extrapolated, ddof=1) / 60**0.5
    assert bias > 4 * np.std(plain, ddof=1) / 60**0.5
    assert abs(np.mean(extrapolated) - truth) < max(0.25 * bias, 3 * error)


def test_the_extrapolation_is_exact_where_the_distance_is_linear_in_1_over_n(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    def linear(mean: torch.Tensor, covariance: torch.Tensor, theirs: Statistics) -> float:
        return 3.0 + 70.0 * float(covariance)

    monkeypatch.setattr("study.evaluation.distances._distance", linear)
    monkeypatch.setattr("study.evaluation.distances._moments", lambda r: (r, 1 / len(r)))
    reference = Statistics(np.zeros(2), np.eye(2), 100)
    found = extrapolated_distance(rng.normal(size=(1000, 2)), reference, 4, 0)
    assert found is not None
    assert found[0] == pytest.approx(3.0)
    assert (found[1][0], found[1][-1], len(found[1])) == (200, 1000, 8)


def test_the_extrapolation_keeps_to_the_least_n(rng: np.random.Generator) -> None:
    reference = Statistics(np.zeros(4), np.eye(4), 100)
    features = rng.normal(size=(100, 4))
    found = extrapolated_distance(features, reference, 40, 0)
    assert found is not None
    assert found[1][0] == 40
    assert extrapolated_distance(features, reference, 51, 0) is None


@pytest.mark.gpu
def test_distances_on_the_gpu_are_those_on_the_cpu(rng: np.random.Generator) -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    ours, theirs = correlated(rng, 500, 64), correlated(rng, 400, 64)
    there, here = (
        frechet_distance(statistics(ours, d), statistics(theirs, d), d) for d in (gpu, cpu)
    )
    assert there == pytest.approx(here, rel=1e-9)
    errors = [frechet_standard_error(ours, statistics(theirs), d) for d in (gpu, cpu)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)
