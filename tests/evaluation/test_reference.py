from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from study.config import ConfigError, EvaluationConfig, Extractor
from study.evaluation.reference import KEPT_FEATURES, Reference, require_samples

CONFIG = EvaluationConfig(
    extractor=Extractor.in_domain,
    weights=None,
    lpips=None,
    kid_subset_size=10,
    bootstrap_samples=2,
    allow_few_samples=False,
)


@pytest.fixture
def reference() -> Reference:
    rng = np.random.default_rng(0)
    train, held_out = rng.normal(size=(40, 4)), rng.normal(size=(20, 4))
    return Reference.of(train, held_out, np.arange(40) % 3, 4, "in_domain")


def test_a_reference_round_trips(reference: Reference, tmp_path: Path) -> None:
    file = tmp_path / "reference" / "some.npz"
    reference.save(file)
    loaded = Reference.load(file)
    for ours, theirs in ((loaded.train, reference.train), (loaded.held_out, reference.held_out)):
        np.testing.assert_array_equal(ours.mean, theirs.mean)
        np.testing.assert_array_equal(ours.covariance, theirs.covariance)
        assert ours.count == theirs.count
    np.testing.assert_array_equal(loaded.train_features, reference.train_features)
    assert (loaded.class_counts, loaded.extractor) == ([14, 13, 13, 0], "in_domain")
    assert [path.name for path in file.parent.iterdir()] == ["some.npz"]


def test_a_missing_reference_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file; made by stage"):
        Reference.load(tmp_path / "none.npz")


@pytest.mark.parametrize("count", [KEPT_FEATURES - 1, KEPT_FEATURES, 2 * KEPT_FEATURES + 7])
def test_kept_features_are_spread_over_the_images(count: int) -> None:
    features = np.stack([np.arange(count), -np.arange(count)], 1).astype(float)
    labels = np.zeros(count, dtype=np.int64)
    kept = Reference.of(features, features[:3], labels, 1, "x").train_features
    assert len(kept) == min(count, KEPT_FEATURES)
    assert kept[-1, 0] > 0.9 * (count - 1)


def test_fewer_samples_than_twice_the_dimension_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_samples = 127: must be at least 128, twice"):
        require_samples(127, 64, CONFIG, "num_samples")
    require_samples(128, 64, CONFIG, "num_samples")


def test_few_samples_can_be_allowed() -> None:
    require_samples(2, 64, replace(CONFIG, allow_few_samples=True), "num_samples")
