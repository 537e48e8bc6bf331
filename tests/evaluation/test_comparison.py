from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from study.config import StudyError
from study.data.store import to_float
from study.evaluation.comparison import Comparison, Judges
from study.evaluation.distances import frechet_distance, statistics
from study.evaluation.features import FeatureExtractor
from study.evaluation.networks.in_domain import InDomainNetwork
from study.evaluation.networks.perceptual import PerceptualDistance
from study.evaluation.reconstruction import ssim
from study.evaluation.result import Result


@pytest.fixture
def x(images: np.ndarray) -> Tensor:
    return to_float(torch.from_numpy(images))


def values(comparison: Comparison) -> dict[str, float]:
    return {result.metric: result.value for result in comparison.results()}


def test_equal_images_are_at_no_distance(judges: Judges, x: Tensor) -> None:
    comparison = Comparison(judges, with_ssim=True)
    comparison.add(x, x)
    assert values(comparison) == {
        "psnr_db": pytest.approx(120),
        "ssim": pytest.approx(1),
        "perceptual_in_domain": 0,
        "rfd_in_domain": pytest.approx(0, abs=1e-6),
    }


def test_metrics_are_means_over_images_and_a_distance_of_sets(
    judges: Judges, extractor: FeatureExtractor, perceptual: PerceptualDistance, x: Tensor
) -> None:
    other = x.flip(-1)
    comparison = Comparison(judges, with_ssim=True)
    for part in (slice(0, 5), slice(5, None)):
        comparison.add(other[part], x[part])
    error = ((other - x) / 2).square().flatten(1).mean(1)
    ours, theirs = (
        statistics(extractor(torch.round((image + 1) * 127.5).byte())) for image in (other, x)
    )
    assert values(comparison) == {
        "psnr_db": pytest.approx(float((-10 * error.log10()).mean()), rel=1e-5),
        "ssim": pytest.approx(float(ssim((other + 1) / 2, (x + 1) / 2).mean()), rel=1e-4),
        "perceptual_in_domain": pytest.approx(float(perceptual(other, x).mean()), rel=1e-4),
        "rfd_in_domain": pytest.approx(frechet_distance(ours, theirs), rel=1e-4),
    }


def test_a_reference_takes_the_place_of_the_targets(judges: Judges, x: Tensor) -> None:
    comparison = Comparison(judges, judges.reference)
    comparison.add(x, x)
    assert values(comparison)["rfd_in_domain"] > 1
    assert comparison.target_features == []


def test_results_name_images_and_extractor(judges: Judges, x: Tensor) -> None:
    comparison = Comparison(judges)
    comparison.add(x, x.flip(-1))
    named = {r.metric: (r.n, r.extractor) for r in comparison.results()}
    assert named == {
        "psnr_db": (16, None),
        "perceptual_in_domain": (16, None),
        "rfd_in_domain": (16, "in_domain"),
    }


def test_images_are_clipped_and_rounded_to_8_bits(x: Tensor) -> None:
    comparison = Comparison(Judges())
    comparison.add(torch.full_like(x, 7.0), torch.full_like(x, 1.0003))
    [result] = comparison.results()
    assert result == Result("psnr_db", result.value, 16)
    assert result.value == pytest.approx(120)


def test_a_feature_that_is_not_finite_is_refused(
    judges: Judges, network: InDomainNetwork, x: Tensor
) -> None:
    assert network.embed.bias is not None
    network.embed.bias.fill_(torch.inf)
    comparison = Comparison(replace(judges, perceptual=None))
    comparison.add(x, x)
    with pytest.raises(StudyError, match=r"^in_domain: a feature is not finite$"):
        list(comparison.results())
