"""Images through an autoencoder, checked: what every measurement of one is made of."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder, Posterior
from study.data.store import to_float


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
        RuntimeError: a latent is not finite.
    """
    posterior = autoencoder.encode(images)
    if not bool(torch.isfinite(posterior.mean).all()):
        raise RuntimeError(f"{what}: a latent is not finite")
    return posterior


def decode(autoencoder: Autoencoder, latents: Tensor, what: str) -> Tensor:
    """Images of latents; arguments and errors as those of `encode`."""
    images = autoencoder.decode(latents)
    if not bool(torch.isfinite(images).all()):
        raise RuntimeError(f"{what}: a decoded pixel is not finite")
    return images
