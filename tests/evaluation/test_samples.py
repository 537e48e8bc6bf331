import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from study.config import EvaluationConfig, Extractor
from study.evaluation.distances import frechet_distance, statistics
from study.evaluation.features import Features
from study.evaluation.reference import Reference
from study.evaluation.samples import (
    Gallery,
    SampleMeasures,
    as_floor,
    inception_score,
    published_name,
)

CPU = torch.device("cpu")
CONFIG = EvaluationConfig(
    extractor=Extractor.in_domain,
    weights=None,
    lpips=None,
    adm_reference=None,
    kid_subset_size=20,
    allow_few_samples=False,
)


def features(count: int, seed: int, shift: float = 0.0) -> Features:
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(count, 4)) + shift).astype(np.float32)
    return Features(vectors, rng.normal(size=(count, 6)) + shift, 3 * rng.normal(size=(count, 5)))


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3 * 16), dtype=np.uint8)


@pytest.fixture
def gallery() -> Gallery:
    return Gallery(features(300, 0).vectors, pixels(300, 0))


@pytest.fixture
def reference(gallery: Gallery) -> Reference:
    held_out = features(80, 1)
    nearest = gallery.nearest(held_out.vectors, pixels(80, 1), CPU)
    return Reference.of(features(300, 0), held_out, nearest, [100, 200], "in_domain")


@pytest.fixture
def measures(reference: Reference) -> SampleMeasures:
    return SampleMeasures(reference, CONFIG, CPU)


def test_one_set_of_features_gives_every_measure(
    measures: SampleMeasures, reference: Reference
) -> None:
    samples = features(60, 2, 0.5)
    found = {result.metric: result for result in measures.everything(samples)}
    assert [*found] == [
        *("fd_in_domain", "fd_in_domain_held_out", "sfd_in_domain", "kid_in_domain"),
        *("inception_score_in_domain", "precision_in_domain", "recall_in_domain"),
        *("density_in_domain", "coverage_in_domain"),
    ]
    assert {(result.n, result.extractor) for result in found.values()} == {(60, "in_domain")}
    for metric, ours, theirs in (
        ("fd_in_domain", samples.vectors, reference.train),
        ("fd_in_domain_held_out", samples.vectors, reference.held_out),
        ("sfd_in_domain", samples.spatial, reference.train_spatial),
    ):
        assert found[metric].value == frechet_distance(statistics(ours), theirs)


def test_only_the_distance_has_an_interval_and_it_is_never_below_zero(
    measures: SampleMeasures,
) -> None:
    found = list(measures.everything(features(60, 2, 0.5)))
    distance = found[0]
    assert distance.low is not None
    assert distance.high is not None
    assert 0 < distance.low < distance.value < distance.high
    assert distance.high - distance.value == pytest.approx(distance.value - distance.low)
    assert all(result.low is result.high is None for result in found[1:])
    (near,) = measures.frechet(features(60, 4), "_random_latents")
    assert (near.metric, near.low) == ("fd_in_domain_random_latents", 0)
    assert near.high is not None
    assert near.high - near.value > near.value


def test_the_second_extractor_gives_one_more_distance_where_there_is_one(
    reference: Reference, measures: SampleMeasures
) -> None:
    vectors = features(60, 2).vectors[:, ::-1].copy()
    assert list(measures.second(None)) == list(measures.second(vectors)) == []
    assert measures.protocol()["second extractor"] == "none"
    reference.second = statistics(features(200, 0).vectors)
    (found,) = measures.second(vectors)
    assert (found.metric, found.n) == ("fd_in_domain_self_supervised", 60)
    assert found.extractor == "in_domain_self_supervised"
    assert found.value == frechet_distance(statistics(vectors), reference.second)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert as_floor(found).metric == "fd_in_domain_self_supervised_floor"
    assert measures.protocol()["second extractor"] == found.extractor


@pytest.mark.parametrize(
    ("extractor", "adm", "n", "expected"),
    [
        ("inception", True, 50_000, ("fid", "sfid")),
        ("inception", True, 49_999, ("fd_inception", "sfd_inception")),
        ("inception", False, 50_000, ("fd_inception", "sfd_inception")),
        ("in_domain", False, 50_000, ("fd_in_domain", "sfd_in_domain")),
    ],
)
def test_fid_is_the_name_of_the_published_protocol_alone(
    reference: Reference, extractor: str, adm: bool, n: int, expected: tuple[str, str]
) -> None:
    reference.extractor, reference.adm = extractor, adm
    assert tuple(published_name(name, reference, n) for name in ("fid", "sfid")) == expected


def test_inceptions_own_score_has_its_own_name(reference: Reference) -> None:
    reference.extractor = "inception"
    found = SampleMeasures(reference, CONFIG, CPU).everything(features(60, 2))
    assert "inception_score" in {result.metric for result in found}


@pytest.mark.parametrize(("extractor", "resize"), [("inception", "299 x 299"), ("in_domain", "no")])
def test_the_protocol_says_how_images_were_resized(
    reference: Reference, extractor: str, resize: str
) -> None:
    reference.extractor = extractor
    protocol = SampleMeasures(reference, CONFIG, CPU).protocol()
    assert str(protocol["resize"]).startswith(resize)
    assert protocol["extractor"] == extractor


def test_held_out_images_take_the_place_of_samples_for_the_floor(
    measures: SampleMeasures, reference: Reference
) -> None:
    found = {result.metric: result.value for result in measures.floor(features(80, 1))}
    assert found["fd_in_domain_floor"] == pytest.approx(
        frechet_distance(reference.held_out, reference.train)
    )
    assert {"precision_in_domain_floor", "fd_in_domain_infinity_floor"} <= found.keys()
    assert all(name.endswith("_floor") and "held_out" not in name for name in found)


def test_the_extrapolation_needs_two_halves_of_twice_the_dimension(
    measures: SampleMeasures,
) -> None:
    (found,) = measures.extrapolated(features(60, 2))
    assert found.metric == "fd_in_domain_infinity"
    assert measures.protocol()["n of the fit for infinitely many samples"].startswith("12, ")  # type: ignore[union-attr]
    few = SampleMeasures(measures.reference, CONFIG, CPU)
    assert list(few.extrapolated(features(15, 2))) == []
    assert "none" in str(few.protocol()["n of the fit for infinitely many samples"])


def test_few_samples_are_extrapolated_where_they_are_allowed(reference: Reference) -> None:
    allowed = SampleMeasures(reference, replace(CONFIG, allow_few_samples=True), CPU)
    assert len(list(allowed.extrapolated(features(15, 2)))) == 1


def test_reconstructions_are_a_reference_and_have_a_distance_of_their_own(
    measures: SampleMeasures, reference: Reference
) -> None:
    samples, own = features(60, 2, 0.5), features(90, 3, 0.5).vectors
    ours, floor = measures.against_reconstructions(samples, own)
    assert (ours.metric, ours.n) == ("fd_in_domain_reconstructions", 60)
    assert ours.value == frechet_distance(statistics(samples.vectors), statistics(own))
    assert (floor.metric, floor.n) == ("rfd_in_domain_training", 90)
    assert floor.value == frechet_distance(statistics(own), reference.train)


def test_copies_of_training_images_are_found(measures: SampleMeasures, gallery: Gallery) -> None:
    copies = features(300, 0)[:40]
    found = measures.nearest(copies, gallery.thumbnails[:40], gallery)
    assert [(r.metric, r.value) for r in found] == [
        ("nearest_ratio_in_domain", 0),
        ("nearest_ratio_pixels", 0),
    ]


def test_new_images_are_as_far_as_held_out_ones(measures: SampleMeasures, gallery: Gallery) -> None:
    found = list(measures.nearest(features(200, 5), pixels(150, 5), gallery))
    assert [result.value for result in found] == pytest.approx([1, 1], abs=0.1)
    assert {result.n for result in found} == {150}


def test_a_gallery_round_trips_without_pickled_objects(gallery: Gallery, tmp_path: Path) -> None:
    gallery.save(tmp_path / "gallery")
    loaded = Gallery.load(tmp_path / "gallery")
    np.testing.assert_allclose(loaded.vectors, gallery.vectors, rtol=1e-3)
    np.testing.assert_array_equal(loaded.thumbnails, gallery.thumbnails)
    (tmp_path / "gallery" / "vectors.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"vectors\.npy: no such file; made by"):
        Gallery.load(tmp_path / "gallery")


def test_the_score_of_uniform_predictions_is_one() -> None:
    assert inception_score(np.zeros((100, 7))) == pytest.approx(1)


def test_the_score_of_sure_and_balanced_predictions_is_the_number_of_classes() -> None:
    logits = 100 * np.eye(7)[np.arange(700) % 7]
    assert inception_score(logits) == pytest.approx(7)


def test_the_score_of_one_class_is_one() -> None:
    assert inception_score(np.tile([50.0, 0, 0], (90, 1))) == pytest.approx(1)


def test_the_score_is_torch_fidelitys_in_splits_of_5000() -> None:
    logits = np.random.default_rng(0).normal(size=(10_000, 4)) * 2
    expected = isc_features_to_metric(torch.from_numpy(logits), splits=2)["inception_score_mean"]
    assert inception_score(logits) == pytest.approx(expected, rel=1e-12)
    probabilities = torch.from_numpy(logits[:4999]).softmax(1).numpy()
    entropy = (probabilities * np.log(probabilities / probabilities.mean(0))).sum(1).mean()
    assert inception_score(logits[:4999]) == pytest.approx(math.exp(entropy), rel=1e-9)
