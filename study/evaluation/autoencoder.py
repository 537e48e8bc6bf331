"""Measurements of one autoencoder: reconstruction and equivariance error."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder
from study.config import Interpolation
from study.data.store import to_float, to_uint8
from study.equivariance import EquivarianceError, Transform
from study.evaluation.reconstruction import psnr_db, ssim

QUARTER_TURNS = (1, 2, 3)


@dataclass(slots=True)
class Reconstructions:
    """What comes out of decoding the mean latents."""

    images: np.ndarray
    """uint8 N 3 H W."""
    psnr_db: Tensor
    """Per image, N."""
    ssim: Tensor
    """Per image, N."""
    latent_mean: Tensor
    """Per channel, C."""
    latent_std: Tensor
    """Per channel, C."""


def batches(images: np.ndarray, size: int, device: torch.device) -> Iterator[Tensor]:
    """Images in [-1, 1], B 3 H W, in order."""
    for first in range(0, len(images), size):
        yield to_float(torch.from_numpy(np.array(images[first : first + size]))).to(device)


@torch.inference_mode()
def reconstruct(autoencoder: Autoencoder, images: np.ndarray, batch_size: int) -> Reconstructions:
    """Encode and decode images (uint8 N 3 H W) through the mean of the posterior.

    PSNR and SSIM compare 8-bit images, which is what anyone who saves them has.
    """
    device = next(autoencoder.parameters()).device
    decoded, ratios, similarities, means = [], [], [], []
    for batch in batches(images, batch_size, device):
        latents = autoencoder.encode(batch).mean
        result = to_uint8(autoencoder.decode(latents))
        ours, truth = result.float() / 255, to_uint8(batch).float() / 255
        ratios.append(psnr_db(ours, truth).cpu())
        similarities.append(ssim(ours, truth).cpu())
        means.append(latents.cpu())
        decoded.append(result.cpu().numpy())
    latents = torch.cat(means)
    return Reconstructions(
        images=np.concatenate(decoded),
        psnr_db=torch.cat(ratios),
        ssim=torch.cat(similarities),
        latent_mean=latents.mean((0, 2, 3)),
        latent_std=latents.std((0, 2, 3)),
    )


@torch.inference_mode()
def equivariance_errors(
    autoencoder: Autoencoder, images: np.ndarray, batch_size: int, scales: list[float]
) -> dict[str, EquivarianceError]:
    """Error of mean latents for each quarter turn and scale (bilinear, no antialias).

    Args:
        autoencoder: in eval mode; family vq: features before quantisation.
        images: uint8 N 3 H W.
        batch_size: images per encoder call.
        scales: isotropic scales; times the latent side rounded to whole sides.

    Returns:
        accumulated errors by name: turn_90, turn_180, turn_270, scale_<s>.
    """
    device = next(autoencoder.parameters()).device
    side = images.shape[-1] // autoencoder.factor
    transforms = {f"turn_{90 * turns}": _transform(side, turns) for turns in QUARTER_TURNS}
    transforms |= {f"scale_{scale:g}": _transform(round(scale * side), 0) for scale in scales}
    errors = {name: EquivarianceError() for name in transforms}
    for batch in batches(images, batch_size, device):
        latents = autoencoder.encode(batch).mean
        for name, transform in transforms.items():
            moved = transform.on_images(batch, autoencoder.factor)
            errors[name].add(transform.on_latents(latents), autoencoder.encode(moved).mean)
    return errors


def _transform(side: int, turns: int) -> Transform:
    return Transform(side, side, turns, Interpolation.bilinear, antialias=False)
