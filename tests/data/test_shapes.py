import numpy as np
import pytest

from study.data import shapes


def _share_above_half_nyquist(image: np.ndarray) -> float:
    """Share of the energy (without the mean) at more than a quarter cycle per pixel."""
    grey = image.mean(axis=2)
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    line = np.fft.fftfreq(len(grey))
    radius = np.hypot(line[:, None], line[None, :])
    return float(power[radius > 0.25].sum() / power.sum())


def test_same_arguments_give_the_same_image():
    assert np.array_equal(shapes.draw(5, 1, 32, seed=3), shapes.draw(5, 1, 32, seed=3))


@pytest.mark.parametrize("other", [(6, 1, 32, 3), (5, 2, 32, 3), (5, 1, 32, 4)])
def test_index_label_and_seed_each_change_the_image(other: tuple[int, int, int, int]):
    assert not np.array_equal(shapes.draw(5, 1, 32, 3), shapes.draw(*other))


@pytest.mark.parametrize("size", [8, 32, 64, 128])
def test_image_is_uint8_of_the_size(size: int):
    image = shapes.draw(0, 0, size, seed=0)
    assert image.dtype == np.uint8
    assert image.shape == (size, size, 3)


@pytest.mark.parametrize("num_classes", range(2, 13))
def test_labels_run_in_turn_from_zero_in_both_splits(num_classes: int):
    for start in (0, shapes.VALIDATION_START):
        labels = [label for _, label in shapes.dataset(24, num_classes, 8, 0, start)]
        assert labels == [i % num_classes for i in range(24)]


def test_twelve_classes_are_twelve_pairs():
    assert len(set(shapes.CLASS_NAMES)) == 12


def test_validation_images_differ_from_training_images():
    train = {image.tobytes() for image, _ in shapes.dataset(60, 12, 32, 0)}
    start = shapes.VALIDATION_START
    validation = {image.tobytes() for image, _ in shapes.dataset(60, 12, 32, 0, start)}
    assert len(train | validation) == 120


@pytest.mark.parametrize("label", range(12))
def test_every_class_has_detail_above_half_nyquist(label: int):
    images = [shapes.draw(index, label, 32, seed=0) for index in range(20)]
    # At least half of what photographs have: 0.08, over 200 of ImageNet scaled to this size.
    assert np.mean([_share_above_half_nyquist(image) for image in images]) > 0.04


def test_a_larger_image_shows_the_same_scene():
    small = shapes.draw(7, 3, 32, seed=0).astype(float)
    large = shapes.draw(7, 3, 128, seed=0).astype(float)
    averaged = large.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(averaged - small).mean() < 10


@pytest.mark.parametrize("label", range(12))
def test_objects_cover_a_recognisable_share_of_the_image(label: int):
    shares = []
    for index in range(10):
        image = shapes.draw(index, label, 32, seed=0).astype(float)
        # The corners are background; the object's colours are far from it.
        corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
        distance = np.abs(image[:, :, None] - corners).max(axis=-1).min(axis=-1)
        shares.append((distance > 40).mean())
    assert 0.08 < np.mean(shares) < 0.7
