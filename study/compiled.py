"""Layers of diffusers in a form that a compiler makes fast code of; weights and names stay."""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn


class Repeated(Upsample2D):
    """Nearest-neighbour upsampling by two, then a convolution, of which the backward pass is a sum.

    A compiler makes indexing of `interpolate`, and the deterministic backward pass of that sorts
    the indices: a quarter of the time of a fine-tuning step of SD-VAE.
    """

    def forward(self, hidden_states: Tensor) -> Tensor:  # pyright: ignore
        """B C H W to B C' 2H 2W."""
        batch, channels, height, width = hidden_states.shape
        # Channels last, which convolutions want.
        pixels = hidden_states.permute(0, 2, 3, 1)[:, :, None, :, None]
        pixels = pixels.expand(-1, -1, 2, -1, 2, -1)
        pixels = pixels.reshape(batch, 2 * height, 2 * width, channels)
        assert self.conv is not None
        return self.conv(pixels.permute(0, 3, 1, 2))


class _ChannelsLast(torch.autograd.Function):
    """A batch of images in the layout of that name, and its gradient too."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore
        return gradient.contiguous(memory_format=torch.channels_last)


class ChannelsLastGroupNorm(nn.GroupNorm):
    """Group normalisation between convolutions that want channels last.

    The compiler's own returns its result and its gradient in the other layout, and every
    convolution next to it copies them: 24 of 125 ms of a fine-tuning step of SD-VAE.
    """

    def forward(self, input: Tensor) -> Tensor:
        """B C H W; other shapes, as within attention, as they are."""
        if input.ndim != 4:
            return super().forward(input)
        return _ChannelsLast.apply(super().forward(_ChannelsLast.apply(input)))  # type: ignore


def rewrite(model: nn.Module) -> None:
    """Replace what an autoencoder's compiled code would lose time with, in place.

    Attention of one head as wide as the network, 512, has no fused kernel that is fast: its
    backward pass took 15 of 186 ms of a fine-tuning step of SD-VAE. It becomes two products and a
    softmax.
    """
    for module in model.modules():
        if type(module) is Upsample2D and module.use_conv and not module.use_conv_transpose:
            module.__class__ = Repeated
        elif isinstance(module, Attention):
            module.set_processor(AttnProcessor())
        elif type(module) is nn.GroupNorm:
            module.__class__ = ChannelsLastGroupNorm
