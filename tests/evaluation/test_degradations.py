from pathlib import Path

import numpy as np
import pytest
import torch

from study import paths
from study.evaluation.degradations import DROPPED, GRADES, class_responses, degrade, responses
from study.evaluation.distances import statistics
from study.evaluation.features import FeatureExtractor
from study.evaluation.networks.in_domain import InDomainNetwork
from study.evaluation.real_images import against_adm, features_of, ruler, scan
from study.evaluation.reference import Reference


@pytest.fixture
def many(images: np.ndarray) -> np.ndarray:
    """64 procedural images."""
    return np.concatenate([images, images[:, :, ::-1], images[..., ::-1], 255 - images])


@pytest.fixture
def extractor(network: InDomainNetwork) -> FeatureExtractor:
    return FeatureExtractor("in_domain", network, torch.device("cpu"))


@pytest.mark.parametrize("kind", GRADES)
def test_a_higher_grade_changes_images_more(many: np.ndarray, kind: str) -> None:
    errors = []
    for amount in GRADES[kind]:
        found = degrade(many, kind, amount, 0)
        assert (found.dtype, found.shape) == (np.uint8, many.shape)
        errors.append(np.abs(found.astype(float) - many).mean())
    assert errors == sorted(errors)
    # The weakest blur is a quarter of a pixel at this size.
    assert 0 < errors[1] < errors[2]


def test_blur_keeps_images_and_channels_apart() -> None:
    images = np.zeros((2, 3, 16, 16), np.uint8)
    images[0, 1] = 255
    np.testing.assert_array_equal(degrade(images, "blur", 1 / 8, 0), images)


def test_noise_is_that_of_its_seed(many: np.ndarray) -> None:
    first, same, other = (degrade(many, "noise", 16.0, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_an_unknown_degradation_is_refused(many: np.ndarray) -> None:
    with pytest.raises(ValueError, match="kind = 'fog': must be one of blur, noise, jpeg"):
        degrade(many, "fog", 1, 0)


def test_every_grade_is_measured_and_the_first_is_the_images_as_they_are(
    extractor: FeatureExtractor, many: np.ndarray
) -> None:
    train = statistics(extractor(torch.from_numpy(many)))
    found = {r.name: r for r in responses(extractor, many, train, 20, 0)}
    assert [*found] == [f"{kind}_{grade}" for kind in GRADES for grade in range(4)]
    assert {response.n for response in found.values()} == {64}
    for kind in GRADES:
        assert found[f"{kind}_0"].distance == pytest.approx(0, abs=1e-6)
        assert found[f"{kind}_3"].distance > 1e-6


def test_dropped_classes_are_measured_with_equally_many_images() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 8
    features = rng.normal(size=(400, 3)) + 4 * np.eye(8)[labels][:, :3]
    found = list(class_responses(features, labels, statistics(features), 0))
    assert [response.name for response in found] == [f"classes_{grade}" for grade in range(4)]
    assert {response.n for response in found} == {200}
    distances = [response.distance for response in found]
    assert distances == sorted(distances)
    assert len(DROPPED) == 3


@pytest.mark.parametrize(("classes", "grades"), [(1, 1), (2, 2), (3, 3)])
def test_grades_that_drop_as_many_classes_are_one(classes: int, grades: int) -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(90, 3)), np.arange(90) % classes
    assert len(list(class_responses(features, labels, statistics(features), 0))) == grades


def test_the_ruler_leaves_out_what_has_too_few_images(
    extractor: FeatureExtractor, many: np.ndarray
) -> None:
    held_out, gallery = scan(extractor, many, 20)
    assert (len(held_out), gallery.thumbnails.shape) == (64, (64, 3 * 16 * 16))
    train, labels = statistics(held_out.vectors), np.arange(64) % 4
    # 8 dimensions: 16 images are enough, 15 are not.
    for count, kinds in ((16, {"blur", "noise", "jpeg", "classes"}), (15, {"classes"})):
        found = list(ruler(extractor, many[:count], held_out, labels, train, 20))
        assert {result.metric.split("_")[1] for result in found} == kinds
        assert {result.extractor for result in found} == {"in_domain"}


def test_the_ruler_of_the_second_extractor_has_its_name(
    extractor: FeatureExtractor, many: np.ndarray
) -> None:
    extractor.name = "in_domain_self_supervised"
    held_out = features_of(extractor, many, 20)
    train, labels = statistics(held_out.vectors), np.arange(64) % 4
    found = list(ruler(extractor, many, held_out, labels, train, 20))
    assert all(result.metric.startswith("ruler_self_supervised_") for result in found)
    assert {result.extractor for result in found} == {"in_domain_self_supervised"}


def test_adms_statistics_take_the_place_of_the_training_images(
    extractor: FeatureExtractor, many: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    features, gallery = scan(extractor, many, 20)
    nearest = gallery.nearest(features.vectors, gallery.thumbnails, extractor.device)
    own = Reference.of(features, features, nearest, [64], "in_domain")
    d, s = features.vectors.shape[1], features.spatial.shape[1]
    arrays = {"mu": np.zeros(d), "sigma": np.eye(d), "mu_s": np.zeros(s), "sigma_s": np.eye(s)}
    pixels = many[:10].transpose(0, 2, 3, 1)
    np.savez(tmp_path / "adm.npz", arr_0=pixels, **arrays)  # type: ignore[arg-type]
    found = against_adm(own, "adm.npz", extractor, 20)
    np.testing.assert_array_equal(found.train.covariance, np.eye(d))
    np.testing.assert_array_equal(found.train_spatial.mean, np.zeros(s))
    np.testing.assert_allclose(found.train_features, features.vectors[:10], rtol=1e-5)
    assert (found.source, found.adm) == ("ADM statistics adm.npz, with 10 images", True)
    assert found.held_out.count == 64
