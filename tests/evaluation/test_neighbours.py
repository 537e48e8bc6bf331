import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from study.config import StudyError
from study.evaluation import neighbours
from study.evaluation.neighbours import (
    RealManifold,
    nearest_distance,
    nearest_pixels,
    thumbnails,
)

LINE = np.arange(10.0)[:, None]
"""Real images on a line; inner ones have their 3rd neighbour at 2, their 5th at 3."""


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(params=[1, 37, 10**6], ids="block of {}".format)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(neighbours, "BLOCK", request.param)
    return request.param


def test_the_real_images_themselves_score_best() -> None:
    found = RealManifold(LINE).compare(LINE)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density >= 1


def test_samples_far_away_score_nothing() -> None:
    found = RealManifold(LINE).compare(LINE + 1000)
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


def test_one_mode_of_two_is_precise_and_recalls_half(rng: np.random.Generator) -> None:
    real = rng.normal(size=(400, 2)) + np.repeat([[0, 0], [100, 0]], 200, 0)
    found = RealManifold(real).compare(rng.normal(size=(200, 2)))
    assert found.precision > 0.95
    assert found.recall == pytest.approx(0.5, abs=0.05)
    assert found.coverage == pytest.approx(0.5, abs=0.05)
    # 200 samples among 200 real images of the same distribution.
    assert found.density == pytest.approx(1, abs=0.15)


def test_counts_on_a_line_are_those_by_hand() -> None:
    # 4.25 is within reach of real images by k = 3: |4.25 - r| <= 2 for r = 3, 4, 5, 6 among others;
    # by k = 5 (radius 3 inside, more at the ends): r = 2, 3, 4, 5, 6, 7 and 1 (radius 4).
    samples = np.array([[4.25], [50.0], [60.0], [80.0], [90.0]])
    found = RealManifold(LINE).compare(samples)
    radii = np.sort(np.abs(LINE - LINE.T), 1)[:, 5]
    inside = int((np.abs(4.25 - LINE[:, 0]) <= radii).sum())
    assert found.precision == 1 / 5
    assert found.density == pytest.approx(inside / (5 * 5))
    assert found.coverage == pytest.approx(inside / 10)
    # The balls of samples reach to their 3rd neighbour: that of 4.25 to 75.75, that of 90 to 50.
    assert found.recall == 1


def test_an_outlier_among_samples_raises_recall_not_coverage(rng: np.random.Generator) -> None:
    real = rng.normal(size=(100, 2))
    samples = np.concatenate([real[:5] * 0.01, [[1000.0, 0.0]]])
    found = RealManifold(real).compare(samples)
    assert found.recall > 0.4
    assert found.coverage < 0.2


@pytest.mark.usefixtures("block")
def test_precision_and_recall_equal_torch_fidelitys(rng: np.random.Generator) -> None:
    samples, real = rng.normal(size=(90, 5)), 1.5 * rng.normal(size=(120, 5)) + 0.3
    expected = prc_features_to_metric(
        torch.from_numpy(samples),
        torch.from_numpy(real),
        prc_neighborhood=3,
        prc_batch_size=50,
        save_cpu_ram=True,
        verbose=False,
    )
    found = RealManifold(real).compare(samples)
    assert found.precision == pytest.approx(expected["precision"], rel=1e-6)
    assert found.recall == pytest.approx(expected["recall"], rel=1e-6)


def test_k_is_lowered_where_there_are_few_images() -> None:
    found = RealManifold(np.array([[0.0], [1.0]])).compare(np.array([[0.5], [0.6], [9.0]]))
    assert (found.precision, found.coverage) == (pytest.approx(2 / 3), 1)
    assert found.density == pytest.approx(4 / 3)


def test_one_image_has_no_neighbours() -> None:
    with pytest.raises(StudyError, match="1 features: must be at least 2"):
        RealManifold(np.zeros((1, 2)))


@pytest.mark.usefixtures("block")
def test_the_nearest_is_the_nearest(rng: np.random.Generator) -> None:
    queries, gallery = rng.normal(size=(30, 6)), rng.normal(size=(70, 6)).astype(np.float16)
    expected = np.linalg.norm(queries[:, None] - gallery[None].astype(float), axis=2).min(1)
    np.testing.assert_allclose(nearest_distance(queries, gallery), expected, rtol=1e-6)


def test_a_copy_is_at_no_distance_even_far_from_the_origin(rng: np.random.Generator) -> None:
    gallery = 1e4 + rng.normal(size=(50, 6))
    np.testing.assert_allclose(nearest_distance(gallery[7:9] + 1e-3, gallery), 1e-3 * 6**0.5)


def test_a_mirror_image_is_a_copy(rng: np.random.Generator) -> None:
    images = torch.from_numpy(rng.integers(0, 256, (20, 3, 8, 8), dtype=np.uint8))
    gallery = thumbnails(images)
    assert nearest_pixels(thumbnails(images[4:6].flip(-1)), gallery).max() == 0
    assert nearest_pixels(thumbnails(images[4:6].flip(-2)), gallery).min() > 100


@pytest.mark.parametrize(("side", "shown"), [(16, 16), (32, 32), (128, 32)])
def test_thumbnails_have_at_most_32_pixels_a_side(side: int, shown: int) -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(3 * side * side // 256 * 2)
    images = images.view(2, 3, side, side)
    small = thumbnails(images)
    assert (small.shape, small.dtype) == ((2, 3 * shown * shown), np.uint8)
    blocks = images.float().unflatten(3, (shown, -1)).unflatten(2, (shown, -1)).mean((3, 5))
    np.testing.assert_allclose(small, blocks.flatten(1).numpy(), atol=0.51)
