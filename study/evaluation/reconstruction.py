"""Reconstruction quality of pairs of images in [0, 1]."""

import torch
from torch import Tensor
from torch.nn import functional


def psnr_db(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per image, dB; images in [0, 1], B C H W."""
    error = (images - others).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp(min=1e-12))


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity per image [Wang et al. 2004], data range 1.

    Gaussian window of 11 pixels with sigma 1.5, no padding, K = (0.01, 0.03).
    """
    places = torch.arange(11, dtype=images.dtype, device=images.device) - 5
    window = torch.exp(-places.square() / (2 * 1.5**2))
    window = window / window.sum()
    channels = images.shape[1]

    def blur(x: Tensor) -> Tensor:
        rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
        x = functional.conv2d(x, rows, groups=channels)
        return functional.conv2d(x, rows.transpose(2, 3), groups=channels)

    mean_a, mean_b = blur(images), blur(others)
    variance_a = blur(images.square()) - mean_a.square()
    variance_b = blur(others.square()) - mean_b.square()
    covariance = blur(images * others) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a.square() + mean_b.square() + c1) * (variance_a + variance_b + c2)
    )
    return similarity.flatten(1).mean(1)
