"""What a training step of a generator sees."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder
from study.config import Scaling, TrainGeneratorConfig
from study.generators.common import Batch
from study.generators.train import LatentBatches
from study.latents import LatentCache, write_cache

CPU = torch.device("cpu")
MakeRun = Callable[..., TrainGeneratorConfig]


def drawn(batches: LatentBatches, step: int) -> Batch:
    return batches.draw(step, torch.Generator().manual_seed(step))


def latents_of(batch: Batch) -> Tensor:
    assert batch.latents is not None
    return batch.latents


def test_every_image_comes_once_per_epoch(latent_cache: LatentCache, make_run: MakeRun) -> None:
    batches = LatentBatches(latent_cache, Scaling.fixed, None, make_run(), 0, CPU)
    for epoch in range(3):
        indices = batches._indices(np.arange(16 * epoch, 16 * epoch + 16)).tolist()
        assert sorted(indices) == list(range(16))


def test_epochs_and_seeds_have_their_own_order(
    latent_cache: LatentCache, make_run: MakeRun
) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = LatentBatches(latent_cache, Scaling.fixed, None, make_run(), seed, CPU)
        return batches._indices(16 * epoch + np.arange(16)).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_latents_are_standardised(latent_cache: LatentCache, make_run: MakeRun) -> None:
    config = make_run(batch_size=16)
    batches = LatentBatches(latent_cache, Scaling.standardised, None, config, 0, CPU)
    latents = torch.cat([latents_of(drawn(batches, step)) for step in range(40)])
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=0.03, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=0.03, rtol=0)


def test_posterior_noise_is_drawn_anew(latent_cache: LatentCache, make_run: MakeRun) -> None:
    batches = LatentBatches(latent_cache, Scaling.fixed, None, make_run(), 0, CPU)
    one, other = (batches.draw(0, torch.Generator().manual_seed(s)) for s in (0, 1))
    assert torch.equal(one.labels, other.labels)
    assert not torch.equal(latents_of(one), latents_of(other))


def test_labels_are_dropped_at_their_probability(
    latent_cache: LatentCache, make_run: MakeRun
) -> None:
    config = make_run(batch_size=64, label_dropout=0.25)
    batches = LatentBatches(latent_cache, Scaling.fixed, None, config, 0, CPU)
    labels = torch.cat([drawn(batches, step).labels for step in range(50)])
    # Four standard deviations of a binomial share of 3200.
    assert float((labels == 4).float().mean()) == pytest.approx(0.25, abs=0.031)
    assert torch.bincount(labels, minlength=5)[:4].min() > 500


def test_without_dropout_every_label_is_kept(latent_cache: LatentCache, make_run: MakeRun) -> None:
    config = make_run(batch_size=16, label_dropout=0.0)
    batches = LatentBatches(latent_cache, Scaling.fixed, None, config, 0, CPU)
    assert torch.bincount(drawn(batches, 0).labels).tolist() == [4, 4, 4, 4]


def test_images_are_flipped_like_their_latents(
    tmp_path: Path, tiny: Autoencoder, images: np.ndarray, labels: np.ndarray, make_run: MakeRun
) -> None:
    write_cache(tmp_path, tiny, images, labels, 4, 1.0, 16, 100)
    config = make_run(batch_size=16)
    batches = LatentBatches(LatentCache(tmp_path), Scaling.fixed, images, config, 0, CPU)
    batch = drawn(batches, 0)
    assert batch.images is not None
    expected = tiny.encode(batch.images).mean.detach()
    torch.testing.assert_close(latents_of(batch), expected, rtol=2**-10, atol=1e-4)


def test_half_of_the_images_are_flipped(
    latent_cache: LatentCache, images: np.ndarray, make_run: MakeRun
) -> None:
    config = make_run(batch_size=16)
    batches = LatentBatches(latent_cache, Scaling.fixed, images, config, 0, CPU)
    straight = {image.tobytes() for image in images}
    flipped = 0
    for step in range(60):
        found = drawn(batches, step).images
        assert found is not None
        pixels = ((found + 1) * 127.5).round().to(torch.uint8).numpy()
        flipped += sum(image.tobytes() not in straight for image in pixels)
    # Four standard deviations of a binomial share of 960.
    assert flipped / 960 == pytest.approx(0.5, abs=0.065)


def test_images_do_not_change_what_else_is_drawn(
    latent_cache: LatentCache, images: np.ndarray, make_run: MakeRun
) -> None:
    plain, aligned = (
        drawn(LatentBatches(latent_cache, Scaling.fixed, given, make_run(), 0, CPU), 3)
        for given in (None, images)
    )
    assert torch.equal(latents_of(plain), latents_of(aligned))
    assert torch.equal(plain.labels, aligned.labels)


def test_tokens_come_flat_and_with_the_same_labels(
    latent_cache: LatentCache, token_cache: LatentCache, make_run: MakeRun
) -> None:
    batch, other = (
        drawn(LatentBatches(cache, Scaling.standardised, None, make_run(), 0, CPU), 2)
        for cache in (token_cache, latent_cache)
    )
    assert batch.latents is None
    assert batch.tokens is not None
    assert batch.tokens.shape == (8, 64)
    assert torch.equal(batch.labels, other.labels)
