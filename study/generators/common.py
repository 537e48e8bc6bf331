"""What objectives share: a batch, noise keyed by sample, guidance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from study.config import BackboneConfig, LatentSpec, SamplerConfig
from study.config.seeds import derive


@dataclass(kw_only=True, slots=True)
class Batch:
    """What a training step sees."""

    latents: Tensor | None
    """Standardised, B c h w; None for tokens."""
    tokens: Tensor | None
    """B N; None for latents."""
    labels: Tensor
    """B; the null class where the label was dropped."""
    images: Tensor | None
    """B 3 H W in [-1, 1], flipped like the latents; only where the objective asks for them."""


class SampleNoise:
    """Random numbers that depend on seed and sample index only, not on the batch they are in."""

    def __init__(self, seed: int, indices: list[int], device: torch.device) -> None:
        self.device = device
        self.generators = [
            torch.Generator().manual_seed(derive(seed, "sample", index)) for index in indices
        ]

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal, B *shape."""
        return self._stack(torch.randn, shape)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Uniform on [0, 1), B *shape."""
        return self._stack(torch.rand, shape)

    def _stack(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        # From pinned memory, so that the host does not wait for a GPU and draws ahead of it.
        pinned = self.device.type == "cuda"
        drawn = torch.empty(len(self.generators), *shape, pin_memory=pinned)
        for row, generator in zip(drawn, self.generators, strict=True):
            draw(shape, generator=generator, out=row)
        return drawn.to(self.device, non_blocking=pinned)


class GeneratorObjective(Protocol):
    """One method of training and sampling a generator."""

    weights: dict[str, float]
    """Weight of each loss term."""
    needs_images: bool

    def build(self, backbone: BackboneConfig, spec: LatentSpec) -> nn.Module:
        """A network with fresh weights."""
        ...

    def terms(
        self, network: nn.Module, batch: Batch, numbers: torch.Generator
    ) -> dict[str, Tensor]:
        """Unweighted loss terms of a batch; `numbers` is a generator on the batch's device."""
        ...

    def sample(
        self,
        network: nn.Module,
        spec: LatentSpec,
        labels: Tensor,
        noise: SampleNoise,
        sampler: SamplerConfig,
        num_steps: int,
    ) -> Tensor:
        """Standardised latents B c h w, or tokens B h w."""
        ...


def guided(
    network: Callable[..., Tensor],
    x: Tensor,
    t: Tensor,
    labels: Tensor,
    null: int,
    scale: float,
    channels: int | None = None,
) -> Tensor:
    """Network output under classifier-free guidance: null + scale (class - null).

    Args:
        network: called with x, t, labels; once, on a doubled batch, where scale is not 1.
        x: B c h w.
        t: B.
        labels: B.
        null: index of the null class.
        scale: 1 for none.
        channels: guide the first ones only, the others stay those of the class; None: all.
    """
    if scale == 1:
        return network(x, t, labels)
    twice = torch.cat([labels, torch.full_like(labels, null)])
    with_class, without = network(torch.cat([x, x]), torch.cat([t, t]), twice).chunk(2)
    mixed = without + scale * (with_class - without)
    if channels is None:
        return mixed
    return torch.cat([mixed[:, :channels], with_class[:, channels:]], dim=1)


def guidance_at(sampler: SamplerConfig, t: float) -> float:
    """Guidance scale at t (0: data, 1: noise); 1, which is none, outside the sampler's interval."""
    first, last = sampler.cfg_interval
    return sampler.cfg_scale if first <= t <= last else 1.0


def times(x: Tensor, dimensions: int) -> Tensor:
    """Append singleton dimensions to a vector B, so that it broadcasts over samples."""
    return x.view(-1, *[1] * (dimensions - 1))
