"""What looks at an autoencoder while it trains: perceptual distance, held-out measurements."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from study.acceleration import plain_code
from study.autoencoders.models import Autoencoder
from study.config import AutoencoderTrainingConfig, Interpolation, Precision
from study.data.store import to_float
from study.equivariance import EquivarianceError, Transform
from study.evaluation.networks.perceptual import perceptual_distance

SCALES = (0.25, 0.5, 0.75)
"""[EQ-VAE, App. C.3]"""
BATCH = 64
LAST = 0.2
"""Share of a run over which its measurements must have come to rest."""


class Monitor:
    """Reconstruction, equivariance error and latent moments of the first held-out images.

    Args:
        images: uint8 N 3 H W.
        perceptual: distance per image, as in training.
        perceptual_weight: its weight beside L1.
    """

    def __init__(self, images: np.ndarray, perceptual: nn.Module, perceptual_weight: float) -> None:
        self.images = np.array(images)
        self.perceptual, self.weight = perceptual, perceptual_weight

    @torch.inference_mode()
    def __call__(self, autoencoder: Autoencoder) -> dict[str, float]:
        """Measure with mean latents: identity reconstruction, errors in variance form, moments."""
        precision, autoencoder.precision = autoencoder.precision, Precision.fp32
        try:
            with plain_code():
                return self._measure(autoencoder)
        finally:
            autoencoder.precision = precision

    def _measure(self, autoencoder: Autoencoder) -> dict[str, float]:
        device = next(autoencoder.parameters()).device
        side = autoencoder.latent_side(self.images)
        turns = [_transform(side, quarter) for quarter in (1, 2, 3)]
        scales = [_transform(round(scale * side), 0) for scale in SCALES]
        errors = [EquivarianceError() for _ in (*turns, *scales)]
        pixel, distance, latents = [], [], []
        for first in range(0, len(self.images), BATCH):
            batch = to_float(torch.from_numpy(self.images[first : first + BATCH]).to(device))
            mean = autoencoder.encode(batch).mean
            decoded = autoencoder.decode(mean)
            pixel.append((decoded - batch).abs().flatten(1).mean(1))
            distance.append(self.perceptual(batch, decoded))
            latents.append(mean)
            for transform, error in zip((*turns, *scales), errors, strict=True):
                moved = transform.on_images(batch, autoencoder.factor)
                error.add(transform.on_latents(mean), autoencoder.encode(moved).mean)
        forms = [error.variance_form() for error in errors]
        reconstruction = torch.cat(pixel) + self.weight * torch.cat(distance)
        return {
            "held_out_pixel": _mean(torch.cat(pixel)),
            "held_out_perceptual": _mean(torch.cat(distance)),
            "held_out_reconstruction": _mean(reconstruction),
            "equivariance_error_rotation": float(np.mean(forms[: len(turns)])),
            "equivariance_error_scale": float(np.mean(forms[len(turns) :])),
            "equivariance_error": float(np.mean(forms)),
            **latent_moments(torch.cat(latents)),
        }


@dataclass(slots=True)
class Views:
    """What looks at an autoencoder in training: frozen, and the same for every arm."""

    perceptual: nn.Module
    """Distance per image."""
    name: str = "perceptual_in_domain"
    """Of the perceptual distance: `lpips` or `perceptual_in_domain`."""
    monitor: Monitor | None = None
    """Held-out measurements; None: none."""

    @classmethod
    def load(
        cls,
        config: AutoencoderTrainingConfig,
        network: Path,
        held_out: np.ndarray,
        device: torch.device,
    ) -> "Views":
        """Load the perceptual distance and take the first held-out images.

        Args:
            config: LPIPS weights, perceptual weight, number of images.
            network: folder of the in-domain network of role perceptual.
            held_out: uint8 M 3 H W.
            device: where it runs.
        """
        name, perceptual = perceptual_distance(config.lpips, network, device)
        chosen = held_out[: config.monitor_images]
        return cls(perceptual, name, Monitor(chosen, perceptual, config.perceptual_weight))


def range_over_last(points: Sequence[tuple[float, float]]) -> float:
    """Largest less smallest value over the last fifth of the steps, over the last value.

    Args:
        points: step and positive value, in order; the value at the fifth's start counts.
    """
    last_step, last = points[-1]
    values = [value for step, value in points if step >= (1 - LAST) * last_step]
    return (max(values) - min(values)) / last


@torch.inference_mode()
def forward_gflop(autoencoder: Autoencoder, side: int) -> tuple[float, float]:
    """Operations of encoding and of decoding one image of a side, in 1e9 (multiply-add: two)."""
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 3, side, side, device=next(autoencoder.parameters()).device)
    counts = []
    value: Any = image
    for action in (lambda x: autoencoder.encode(x).mean, autoencoder.decode):
        counter = FlopCounterMode(display=False)
        with counter:
            value = action(value)
        counts.append(counter.get_total_flops() / 1e9)
    return counts[0], counts[1]


def latent_moments(latents: Tensor) -> dict[str, float]:
    """Std of latents B c h w about each channel's mean, and share beyond 3 in magnitude.

    The decoder of family tiny applies 3 tanh(z / 3): what is beyond is squeezed.
    """
    variance = latents.var((0, 2, 3), correction=0).mean()
    return {
        "latent_std": float(variance.sqrt()),
        "latent_beyond_3": float((latents.abs() > 3).float().mean()),
    }


def _transform(side: int, turns: int) -> Transform:
    return Transform(side, side, turns, Interpolation.bilinear, antialias=False)


def _mean(values: Tensor) -> float:
    return float(values.mean())
