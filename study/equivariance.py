"""The spatial transforms tau of EQ-VAE: drawing them, applying them to pixels and to latents.

tau = R(theta) S(s_h, s_w): a resize, then a quarter turn [EQ-VAE 2502.09509v3, Eq. 6]. A resize is
two small matrix products, W_h z W_w^T, so that it has a deterministic backward pass on the GPU,
where `interpolate` has none.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from study.config import ArmConfig, Interpolation, ScaleMode

LOWEST_SCALE = 0.25
"""Smallest scale that is drawn [EQ-VAE, Eq. 6]."""
_EMPTY = "equivariance error of no image: add a batch first"


@dataclass(frozen=True, slots=True)
class Transform:
    """One draw of tau, in latent sides; the image sides are `factor` times as long."""

    height: int
    width: int
    quarter_turns: int
    interpolation: Interpolation
    antialias: bool

    def on_latents(self, latents: Tensor) -> Tensor:
        """Resize latents (B c h w) to `height` x `width`, then turn."""
        return self._apply(latents, 1)

    def on_images(self, images: Tensor, factor: int) -> Tensor:
        """Resize images (B C H W) to `factor` times the latent sides, then turn."""
        return self._apply(images, factor)

    def _apply(self, x: Tensor, factor: int) -> Tensor:
        sides = (self.height * factor, self.width * factor)
        x = resize(x, sides, self.interpolation, self.antialias)
        return torch.rot90(x, self.quarter_turns, dims=(-2, -1))


def resize(
    x: Tensor, sides: tuple[int, int], interpolation: Interpolation, antialias: bool
) -> Tensor:
    """`torch.nn.functional.interpolate` (align_corners=False) as W_h x W_w^T.

    Args:
        x: B C H W.
        sides: new height and width.
        interpolation: kernel.
        antialias: widen the kernel when shrinking.
    """
    if sides == tuple(x.shape[-2:]):
        return x
    rows, columns = (
        _weights(old, new, interpolation, antialias, x.dtype, x.device)
        for old, new in zip(x.shape[-2:], sides, strict=True)
    )
    return rows @ x @ columns.T


@lru_cache(maxsize=512)
def _weights(
    old: int,
    new: int,
    interpolation: Interpolation,
    antialias: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    # A tensor made in inference mode could not be used in training later.
    with torch.inference_mode(False):
        identity = torch.eye(old, dtype=torch.float64)[None, None]
        resized = functional.interpolate(
            identity, (new, old), mode=interpolation.value, align_corners=False, antialias=antialias
        )
        return resized[0, 0].to(device, dtype)


def scale_sides(side: int) -> list[int]:
    """Latent sides m that are drawn: from side / 4 to side - 1 (24 of them at 32, 12 at 16)."""
    return list(range(max(1, math.ceil(side * LOWEST_SCALE)), side))


def draw_transform(side: int, arm: ArmConfig, generator: torch.Generator) -> Transform:
    """Draw tau for one batch: sides uniform on `scale_sides`, turn uniform on {1, 2, 3}.

    Args:
        side: latent side.
        arm: which of scale and rotation are on, and the resampling kernel.
        generator: CPU generator; always consumes three numbers, whatever the arm draws.
    """
    sides = scale_sides(side)
    height = sides[_draw(len(sides), generator)]
    width = sides[_draw(len(sides), generator)]
    turns = 1 + _draw(3, generator)
    if arm.scale is ScaleMode.none:
        height = width = side
    elif arm.scale is ScaleMode.isotropic:
        width = height
    return Transform(height, width, turns if arm.rotation else 0, arm.interpolation, arm.antialias)


def draw_low_resolution(side: int, arm: ArmConfig, generator: torch.Generator) -> Transform:
    """Draw a resize without a turn for the low-resolution identity step of the released code."""
    sides = scale_sides(side)
    side = sides[_draw(len(sides), generator)]
    return Transform(side, side, 0, arm.interpolation, arm.antialias)


def draw_downscaled(side: int, arm: ArmConfig, generator: torch.Generator) -> Transform:
    """Draw a resize by a factor of two to four, without a turn [2502.14831]."""
    sides = [each for each in scale_sides(side) if 2 * each <= side]
    side = sides[_draw(len(sides), generator)]
    return Transform(side, side, 0, arm.interpolation, arm.antialias)


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


@dataclass(slots=True)
class EquivarianceError:
    """Accumulates ||tau E(x) - E(tau x)||^2 over images for one transform, in three normalisations.

    Paper's form: mean over images of the ratio to ||E(tau x)||^2 [EQ-VAE, App. C.3]. It depends on
    the mean of the latents. Variance form: mean squared difference over the variance of E(tau x)
    over images and positions, each channel centred on its own mean; 0 for an equivariant encoder,
    2 for unrelated latents of equal moments. Channels are pooled, or each is divided by its own
    variance and the mean over channels taken. Sums stay on the latents' device.
    """

    images: int = 0
    ratio_sum: Tensor | None = None
    positions: int = 0
    sums: Tensor | None = None
    """Per channel: of the squared difference, of E(tau x), of its square; 3 c."""

    def add(self, transformed_latents: Tensor, latents_of_transformed: Tensor) -> None:
        """Add a batch: tau E(x) and E(tau x), both B c h w."""
        ours, truth = transformed_latents.double(), latents_of_transformed.double()
        difference = (ours - truth).square()
        ratio = (difference.flatten(1).sum(1) / truth.square().flatten(1).sum(1)).sum()
        self.ratio_sum = ratio if self.ratio_sum is None else self.ratio_sum + ratio
        self.images += len(truth)
        self.positions += truth[:, 0].numel()
        sums = torch.stack([each.sum((0, 2, 3)) for each in (difference, truth, truth.square())])
        self.sums = sums if self.sums is None else self.sums + sums

    def paper_form(self) -> float:
        """Mean over images of ||tau E(x) - E(tau x)||^2 / ||E(tau x)||^2."""
        if self.ratio_sum is None:
            raise RuntimeError(_EMPTY)
        return float(self.ratio_sum) / self.images

    def variance_form(self) -> float:
        """Mean squared difference over the variance of E(tau x), channels pooled."""
        difference, variance = self._per_channel()
        return float(difference.mean() / variance.mean())

    def channel_form(self) -> float:
        """Mean over channels of the mean squared difference over the channel's variance.

        A constant channel, which has no variance to compare with, is left out.
        """
        difference, variance = self._per_channel()
        return float((difference / variance)[variance > 0].mean())

    def _per_channel(self) -> tuple[Tensor, Tensor]:
        if self.sums is None:
            raise RuntimeError(_EMPTY)
        difference, mean, square = self.sums / self.positions
        variance = square - mean.square()
        # What is left of a constant channel is rounding.
        return difference, variance.where(variance > 1e-12 * square, 0.0)
