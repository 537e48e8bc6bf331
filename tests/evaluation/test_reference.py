from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study import paths
from study.config import ConfigError, EvaluationConfig, Extractor
from study.evaluation.distances import statistics
from study.evaluation.features import Features
from study.evaluation.reference import (
    KEPT_FEATURES,
    Reference,
    read_adm,
    require_samples,
    spread,
)

CONFIG = EvaluationConfig(
    extractor=Extractor.in_domain,
    weights=None,
    lpips=None,
    adm_reference=None,
    kid_subset_size=10,
    allow_few_samples=False,
)


@pytest.fixture
def reference() -> Reference:
    rng = np.random.default_rng(0)
    train, held_out = (
        Features(rng.normal(size=(n, 4)), rng.normal(size=(n, 6)), rng.normal(size=(n, 3)))
        for n in (40, 20)
    )
    nearest = {"features": 1.5, "pixels": 20.0}
    return Reference.of(train, held_out, nearest, [14, 13, 13, 0], "in_domain")


def test_a_second_extractors_statistics_are_kept(reference: Reference, tmp_path: Path) -> None:
    file = tmp_path / "some.npz"
    reference.save(file)
    assert Reference.load(file).second is None
    reference.second = statistics(np.random.default_rng(1).normal(size=(30, 5)))
    reference.save(file)
    loaded = Reference.load(file).second
    assert loaded is not None
    np.testing.assert_array_equal(loaded.mean, reference.second.mean)
    np.testing.assert_array_equal(loaded.covariance, reference.second.covariance)
    assert loaded.count == 30


def test_a_reference_round_trips(reference: Reference, tmp_path: Path) -> None:
    file = tmp_path / "reference" / "some.npz"
    reference.save(file)
    loaded = Reference.load(file)
    for name in ("train", "train_spatial", "held_out"):
        ours, theirs = getattr(loaded, name), getattr(reference, name)
        np.testing.assert_array_equal(ours.mean, theirs.mean)
        np.testing.assert_array_equal(ours.covariance, theirs.covariance)
        assert ours.count == theirs.count
    np.testing.assert_array_equal(loaded.train_features, reference.train_features)
    assert (loaded.class_counts, loaded.extractor) == ([14, 13, 13, 0], "in_domain")
    assert loaded.nearest_held_out == {"features": 1.5, "pixels": 20.0}
    assert (loaded.source, loaded.adm) == ("40 training images", False)
    assert [path.name for path in file.parent.iterdir()] == ["some.npz"]


def test_a_missing_reference_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file; made by stage"):
        Reference.load(tmp_path / "none.npz")


@pytest.mark.parametrize("count", [KEPT_FEATURES - 1, KEPT_FEATURES, 2 * KEPT_FEATURES + 7])
def test_kept_features_are_spread_over_the_images(count: int) -> None:
    features = np.stack([np.arange(count), -np.arange(count)], 1).astype(float)
    kept = spread(features)
    assert len(kept) == min(count, KEPT_FEATURES)
    assert kept[-1, 0] > 0.9 * (count - 1)


def test_fewer_samples_than_twice_the_dimension_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_samples = 127: must be at least 128, twice"):
        require_samples(127, 64, CONFIG, "num_samples")
    require_samples(128, 64, CONFIG, "num_samples")


def test_few_samples_can_be_allowed() -> None:
    require_samples(2, 64, replace(CONFIG, allow_few_samples=True), "num_samples")


ADM: dict[str, Any] = {
    "mu": np.ones(4, np.float32),
    "sigma": np.eye(4),
    "mu_s": np.zeros(6),
    "sigma_s": np.eye(6),
}


@pytest.fixture
def adm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ADM's file belongs."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights" / "adm.npz"


def test_adms_statistics_are_read_in_double_precision(adm: Path) -> None:
    np.savez(adm, **ADM)
    vectors, spatial, images = read_adm("weights/adm.npz")
    assert (vectors.mean.dtype, vectors.covariance.dtype) == (np.float64, np.float64)
    np.testing.assert_array_equal(vectors.mean, np.ones(4))
    np.testing.assert_array_equal(spatial.covariance, np.eye(6))
    assert images is None


def test_adms_images_come_as_channels_first(adm: Path) -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    np.savez(adm, arr_0=pixels, **ADM)
    _, _, images = read_adm("weights/adm.npz")
    assert images is not None
    np.testing.assert_array_equal(images[1, 2], pixels[1, :, :, 2])


def test_a_missing_adm_file_is_named(adm: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights/adm\.npz: no such file; put ADM's"):
        read_adm("weights/adm.npz")


@pytest.mark.parametrize(
    "changes",
    [
        {"sigma": np.ones(4)},
        {"mu": np.array([{"a": 1}], dtype=object)},
        {"mu_s": np.array(["a"])},
    ],
)
def test_another_file_than_adms_is_refused(adm: Path, changes: dict[str, Any]) -> None:
    np.savez(adm, **ADM | changes)
    with pytest.raises(
        ConfigError, match=r"weights/adm\.npz: must be an \.npz of arrays mu, sigma"
    ):
        read_adm("weights/adm.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04broken"])
def test_what_is_no_archive_is_refused(adm: Path, content: bytes) -> None:
    adm.write_bytes(content)
    with pytest.raises(ConfigError, match=r"weights/adm\.npz: must be an \.npz"):
        read_adm("weights/adm.npz")
