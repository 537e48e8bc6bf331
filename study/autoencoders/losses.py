"""Loss terms of autoencoder training: reconstruction, KL or VQ, hinge PatchGAN.

All terms are per pixel of the full-resolution image: the released code sums over pixels, which
differs by that constant only, and Adam does not see constants.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from study import distributed
from study.config import ConfigError, Reduction

_SMALLEST = 4
"""Pixels that two convolutions of kernel 4 need."""


def reconstruction_weight(target: Tensor, full: Tensor, reduction: Reduction) -> float:
    """Weight of a step's reconstruction terms.

    `sum`: pixels of the target over pixels of the full-resolution image, s^2 for scale s, since the
    released code sums over pixels [paper.md 1.3 item 7]; `mean`: 1.
    """
    if reduction is Reduction.mean:
        return 1.0
    return target[0].numel() / full[0].numel()


class Total(torch.autograd.Function):
    """Sum over all processes, of whose losses the sum is differentiated."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Sum of values of one shape."""
        return distributed.total(values.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Sum of the gradients."""
        return distributed.total(gradients[0].clone())


class BatchNorm(nn.BatchNorm2d):
    """Batch norm over the batch of all processes."""

    def forward(self, input: Tensor) -> Tensor:
        """B C H W to the same."""
        if distributed.world() == 1 or not self.training:
            return super().forward(input)
        x = input.float()
        count = x.numel() // x.shape[1] * distributed.world()
        mean = Total.apply(x.sum((0, 2, 3))) / count  # pyright: ignore[reportOptionalOperand]
        centred = x - mean.view(1, -1, 1, 1)
        variance = Total.apply(centred.square().sum((0, 2, 3))) / count  # pyright: ignore
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # pyright: ignore[reportOptionalMemberAccess]
            self.running_mean.lerp_(mean, self.momentum)  # pyright: ignore
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)  # pyright: ignore
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(input.dtype)


class PatchDiscriminator(nn.Module):
    """PatchGAN [pix2pix, 1611.07004], as deep as the smallest input allows.

    Its smallest output is 2 x 2, or 1 x 1 where images of less than 8 pixels occur.

    Raises:
        ConfigError: images of less than 4 pixels occur.
    """

    def __init__(self, smallest_side: int, width: int = 64) -> None:
        super().__init__()
        if smallest_side < _SMALLEST:
            rule = f"must be at least {_SMALLEST} for the discriminator; set adversarial_weight 0"
            raise ConfigError(f"smallest image of the recipe = {smallest_side} pixels: {rule}")
        levels = min(3, int(math.log2(smallest_side)) - 2)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        before = width
        for level in range(1, levels + 1):
            after = width * min(2**level, 8)
            stride = 2 if level < levels else 1
            layers += [
                nn.Conv2d(before, after, 4, stride, 1, bias=False),
                BatchNorm(after),
                nn.LeakyReLU(0.2),
            ]
            before = after
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, 1))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Logits per patch, B 1 h w; real is positive."""
        return self.layers(images)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """0.5 (E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))])."""
    return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())


def adaptive_weight(
    images: Sequence[Tensor], ours: Sequence[Tensor], theirs: Tensor, last_layer: Tensor
) -> Tensor:
    """Ratio of the gradient norms at the decoder's last layer [VQGAN, 2012.09841, Eq. 7].

    Gradients are those of the batch of all processes.

    Args:
        images: decoded images, the first of which the discriminator judges.
        ours: gradients of the reconstruction term by each of them.
        theirs: gradient of the adversarial term by the first.
        last_layer: weight of the decoder's last convolution.
    """
    (mine,) = torch.autograd.grad(images, last_layer, ours, retain_graph=True)
    (other,) = torch.autograd.grad(images[0], last_layer, theirs, retain_graph=True)
    distributed.average([mine, other])
    return (mine.norm() / (other.norm() + 1e-4)).clamp(0.0, 1e4).detach()
