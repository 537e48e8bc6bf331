import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder
from study.config import LatentSpec, Scaling, StudyError
from study.data.store import to_float
from study.keeper import Keeper
from study.latents import LatentCache, write_cache

Write = Callable[..., LatentCache]
EVERY = np.arange(16)
UNFLIPPED, FLIPPED = np.zeros(16, dtype=bool), np.ones(16, dtype=bool)


@pytest.fixture
def write(tmp_path: Path, images: np.ndarray, labels: np.ndarray) -> Write:
    """Write a cache of the 16 images and open it."""

    def run(
        autoencoder: Autoencoder, name: str = "cache", batch_size: int = 8, shard_images: int = 100
    ) -> LatentCache:
        folder = tmp_path / name
        write_cache(folder, autoencoder, images, labels, 4, 0.5, batch_size, shard_images)
        return LatentCache(folder)

    return run


@pytest.fixture
def x(images: np.ndarray) -> Tensor:
    return to_float(torch.from_numpy(images))


def close(ours: Tensor, exact: Tensor) -> None:
    """Within the rounding of half precision."""
    torch.testing.assert_close(ours, exact.detach(), rtol=2**-11, atol=1e-5)


def test_moments_are_the_encoders(write: Write, kl: Autoencoder, x: Tensor) -> None:
    mean, logvar = write(kl).moments(EVERY, UNFLIPPED)
    posterior = kl.encode(x)
    assert logvar is not None
    assert posterior.logvar is not None
    close(mean, posterior.mean)
    close(logvar, posterior.logvar)


def test_flips_are_latents_of_flipped_images(write: Write, kl: Autoencoder, x: Tensor) -> None:
    mean, _ = write(kl).moments(EVERY, FLIPPED)
    close(mean, kl.encode(x.flip(-1)).mean)


def test_each_image_is_flipped_or_not(write: Write, tiny: Autoencoder) -> None:
    cache = write(tiny)
    mixed, _ = cache.moments(EVERY, EVERY % 2 == 1)
    straight, flipped = cache.moments(EVERY, UNFLIPPED)[0], cache.moments(EVERY, FLIPPED)[0]
    assert torch.equal(mixed[::2], straight[::2])
    assert torch.equal(mixed[1::2], flipped[1::2])


def test_a_deterministic_encoder_has_no_variance(
    write: Write, tiny: Autoencoder, x: Tensor
) -> None:
    cache = write(tiny)
    mean, logvar = cache.moments(EVERY, UNFLIPPED)
    assert cache.spec.kind == "deterministic"
    assert logvar is None
    close(mean, tiny.encode(x).mean)


def test_tokens_are_the_encoders(write: Write, vq: Autoencoder, x: Tensor) -> None:
    cache = write(vq)
    assert cache.spec.discrete
    expected = vq.quantise(vq.encode(x).mean).tokens
    assert torch.equal(cache.tokens(EVERY, UNFLIPPED), expected)


def test_token_counts_are_over_images_and_flips(write: Write, vq: Autoencoder) -> None:
    cache = write(vq)
    tokens = torch.cat([cache.tokens(EVERY, UNFLIPPED), cache.tokens(EVERY, FLIPPED)])
    assert cache.spec.token_counts == torch.bincount(tokens.flatten(), minlength=16).tolist()


def test_sampled_latents_standardise_to_zero_and_one(write: Write, kl: Autoencoder) -> None:
    cache = write(kl)
    offset, divisor = cache.spec.affine(Scaling.standardised)
    torch.manual_seed(0)
    draws = []
    for flips in (UNFLIPPED, FLIPPED):
        mean, logvar = cache.moments(EVERY, flips)
        assert logvar is not None
        draws += [mean + (0.5 * logvar).exp() * torch.randn(mean.shape) for _ in range(20)]
    samples = (torch.cat(draws) - offset) / divisor
    torch.testing.assert_close(samples.mean((0, 2, 3)), torch.zeros(4), atol=0.02, rtol=0)
    torch.testing.assert_close(samples.std((0, 2, 3)), torch.ones(4), atol=0.02, rtol=0)


def test_deterministic_latents_standardise_to_zero_and_one(write: Write, tiny: Autoencoder) -> None:
    cache = write(tiny)
    offset, divisor = cache.spec.affine(Scaling.standardised)
    latents = torch.cat([cache.moments(EVERY, flips)[0] for flips in (UNFLIPPED, FLIPPED)])
    scaled = ((latents - offset) / divisor).double()
    torch.testing.assert_close(scaled.mean((0, 2, 3)).abs().max().item(), 0.0, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        scaled.std((0, 2, 3), correction=0), torch.ones(4).double(), atol=1e-3, rtol=0
    )


def test_fixed_scaling_multiplies_by_the_published_factor(spec: LatentSpec) -> None:
    offset, divisor = replace(spec, published_scale=0.25).affine(Scaling.fixed)
    latents = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close((latents - offset) / divisor, 0.25 * latents)


@pytest.mark.parametrize("shard_images", [1, 5, 16])
def test_several_shards_equal_one(
    write: Write, autoencoder: Autoencoder, shard_images: int
) -> None:
    one, several = write(autoencoder), write(autoencoder, "several", 8, shard_images)
    assert (len(several.shards), len(several)) == (-(-16 // shard_images), 16)
    order = np.random.default_rng(0).permutation(16)
    flips = order % 3 == 0
    read = LatentCache.tokens if one.spec.discrete else LatentCache.moments
    for ours, theirs in zip(read(several, order, flips), read(one, order, flips), strict=True):
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=2**-10, atol=1e-5)


def test_batch_size_does_not_change_the_cache(write: Write, kl: Autoencoder) -> None:
    one, other = write(kl), write(kl, "other", batch_size=3)
    ours, theirs = other.moments(EVERY, FLIPPED)[0], one.moments(EVERY, FLIPPED)[0]
    torch.testing.assert_close(ours, theirs, rtol=2**-10, atol=1e-5)
    assert other.spec.std == pytest.approx(one.spec.std, rel=1e-5)


def test_labels_keep_their_order(write: Write, tiny: Autoencoder, labels: np.ndarray) -> None:
    assert write(tiny, shard_images=5).labels.tolist() == labels.tolist()


def test_the_spec_describes_the_latents(write: Write, autoencoder: Autoencoder) -> None:
    spec = write(autoencoder).spec
    assert (spec.family, spec.channels, spec.side) == (autoencoder.family.value, 4, 8)
    assert (spec.factor, spec.num_classes, spec.published_scale) == (2, 4, 0.5)
    assert spec.codebook_size == (16 if autoencoder.discrete else 0)


def test_a_latent_that_is_not_finite_leaves_no_index(
    tmp_path: Path, tiny: Autoencoder, images: np.ndarray, labels: np.ndarray
) -> None:
    with torch.no_grad():
        next(tiny.parameters()).fill_(torch.inf)
    with pytest.raises(StudyError, match="cache: shard 0: a latent is not finite"):
        write_cache(tmp_path / "cache", tiny, images, labels, 4, 1.0, 8, 16)
    with pytest.raises(FileNotFoundError, match="made by stage cache_latents"):
        LatentCache(tmp_path / "cache")


def test_no_shard_needs_pickle(write: Write, kl: Autoencoder, tmp_path: Path) -> None:
    write(kl)
    index = json.loads((tmp_path / "cache" / "index.json").read_text())
    for shard in index["shards"]:
        np.load(tmp_path / "cache" / shard["file"], allow_pickle=False)


@pytest.mark.parametrize("stops", [[1], [0, 2], [1, 2, 3]])
def test_an_interrupted_cache_is_the_undisturbed_one(
    tmp_path: Path,
    autoencoder: Autoencoder,
    images: np.ndarray,
    labels: np.ndarray,
    stops: list[int],
) -> None:
    def cached(name: str, stop: int | None = None, keeper: Keeper | None = None) -> list[int]:
        encoded = []

        def shards(span: range) -> Iterator[int]:
            for number in span:
                if number == stop:
                    raise InterruptedError
                encoded.append(number)
                yield number

        folder = tmp_path / name
        write_cache(folder, autoencoder, images, labels, 4, 0.5, 3, 5, shards, keeper)
        return encoded

    assert cached("a") == [0, 1, 2, 3]
    for stop in stops:
        with pytest.raises(InterruptedError):
            cached("b", stop, Keeper(tmp_path / "work" / "x", every_s=0))
    # The shard before the stop was not yet kept: that is done first thing in the next.
    rest = cached("b", None, Keeper(tmp_path / "work" / "x", every_s=0))
    assert rest == [0, 1, 2, 3][max(0, stops[-1] - 1) :]
    ours, theirs = ({f.name: f.read_bytes() for f in (tmp_path / n).iterdir()} for n in "ab")
    assert ours == theirs
