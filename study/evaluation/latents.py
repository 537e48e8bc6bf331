"""What the latents of an autoencoder are like: moments, spectrum, intrinsic dimension, codebook."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder
from study.evaluation.autoencoder import batches
from study.evaluation.intrinsic_dimension import two_nn
from study.evaluation.result import Result
from study.evaluation.spectrum import Spectrum

BEYOND = 3.0
"""The decoder of family tiny squeezes latents z with 3 tanh(z / 3)."""
_BATCH = 256


def moments(latents: Tensor) -> dict[str, float]:
    """Moments of mean latents N c h w, and the share of values beyond 3 in magnitude.

    `latent_std` is the root of the mean variance, each channel about its own mean.
    """
    means, stds = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    found = {}
    for channel, (mean, std) in enumerate(zip(means.tolist(), stds.tolist(), strict=True)):
        found |= {f"latent_mean_channel_{channel}": mean, f"latent_std_channel_{channel}": std}
    found["latent_std"] = float(stds.square().mean().sqrt())
    return found | {"latent_beyond_3": float((latents.abs() > BEYOND).float().mean())}


def standardised(latents: Tensor) -> Tensor:
    """Latents N c h w with mean 0 and standard deviation 1 in every channel; 0 if constant."""
    mean, std = (f((0, 2, 3), keepdim=True) for f in (latents.mean, latents.std))
    return (latents - mean) / std.where(std > 0, 1.0)


def latent_spectrum(latents: Tensor) -> Spectrum:
    """Spectrum of standardised latents N c h w."""
    spectrum = Spectrum()
    for batch in latents.split(_BATCH):
        spectrum.add(batch)
    return spectrum


def image_spectrum(images: np.ndarray, batch_size: int, device: torch.device) -> Spectrum:
    """Spectrum of images, uint8 N 3 H W, on the scale [-1, 1]."""
    spectrum = Spectrum()
    for batch in batches(images, batch_size, device):
        spectrum.add(batch)
    return spectrum


def intrinsic_dimensions(latents: Tensor, counts: list[int]) -> Iterator[Result]:
    """TwoNN dimension of the first n of standardised latents N c h w, flattened, for every n."""
    for n in counts:
        yield Result(f"intrinsic_dimension_{n}", two_nn(latents[:n].flatten(1)), n)


def token_counts(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    """How often each of the K codebook entries is nearest to features N c h w (family vq)."""
    size = autoencoder.codebook_size
    tokens = (autoencoder.quantise(batch).tokens for batch in latents.split(_BATCH))
    return torch.stack([each.flatten().bincount(minlength=size) for each in tokens]).sum(0)


def codebook_use(counts: Tensor) -> dict[str, float]:
    """Share of the K entries in use, and exp(entropy) of how often each is used.

    Args:
        counts: how often each entry occurs, K.
    """
    share = counts.double() / counts.sum()
    entropy = -torch.special.xlogy(share, share).sum()
    return {
        "codebook_use": float((counts > 0).double().mean()),
        "codebook_perplexity": float(entropy.exp()),
    }
