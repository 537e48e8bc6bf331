"""Images through an autoencoder, checked: what every measurement of one is made of."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from study import distributed
from study.autoencoders.models import Autoencoder, Posterior
from study.config import StudyError
from study.data.store import to_float, to_uint8


def batches(images: np.ndarray, size: int, device: torch.device) -> Iterator[Tensor]:
    """Images in [-1, 1], B 3 H W, in order; `images` are uint8 N 3 H W."""
    for first in range(0, len(images), size):
        yield to_float(torch.from_numpy(np.array(images[first : first + size])).to(device))


def device_of(autoencoder: Autoencoder) -> torch.device:
    """Where the autoencoder's weights are."""
    return next(autoencoder.parameters()).device


def encode(autoencoder: Autoencoder, images: Tensor, what: str) -> Posterior:
    """Posterior of images in [-1, 1], B 3 H W.

    Args:
        autoencoder: in eval mode.
        images: the batch.
        what: names it in an error.

    Raises:
        StudyError: a latent is not finite.
    """
    posterior = autoencoder.encode(images)
    if not bool(torch.isfinite(posterior.mean).all()):
        raise StudyError(f"{what}: a latent is not finite")
    return posterior


def decode(autoencoder: Autoencoder, latents: Tensor, what: str) -> Tensor:
    """Images of latents; arguments and errors as those of `encode`."""
    images = autoencoder.decode(latents)
    if not bool(torch.isfinite(images).all()):
        raise StudyError(f"{what}: a decoded pixel is not finite")
    return images


@torch.inference_mode()
def reconstructions(
    autoencoder: Autoencoder, images: np.ndarray, count: int, batch_size: int, seed: int
) -> Iterator[Tensor]:
    """Images as the autoencoder gives them back, uint8 B 3 H W: what a generator can at best make.

    As generators see them: spread over the set, half of them mirrored, latents sampled. Several
    processes take batches in turn.

    Args:
        autoencoder: in eval mode.
        images: uint8 N 3 H W.
        count: how many; at most N.
        batch_size: images per call.
        seed: of mirroring and samples.
    """
    chosen = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    mirrored = np.random.default_rng(seed).random(len(chosen)) < 0.5
    numbers = torch.Generator().manual_seed(seed)
    side = autoencoder.latent_side(images)
    for turn, first in enumerate(range(0, len(chosen), batch_size)):
        rows = slice(first, first + batch_size)
        shape = (len(chosen[rows]), autoencoder.channels, side, side)
        noise = torch.randn(shape, generator=numbers)
        if turn % distributed.world() != distributed.rank():
            continue
        batch = to_float(torch.from_numpy(images[chosen[rows]]).to(device_of(autoencoder)))
        flips = torch.from_numpy(mirrored[rows]).to(batch.device).view(-1, 1, 1, 1)
        here = f"images from {first}"
        posterior = encode(autoencoder, torch.where(flips, batch.flip(-1), batch), here)
        latents = posterior.sample(noise.to(batch.device))
        yield to_uint8(decode(autoencoder, latents, here))
