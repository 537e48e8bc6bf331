"""SiT: velocity prediction on an interpolant between data and noise [2401.08740].

Time runs from data (t = 0) to noise (t = 1), as in DiT and REPA; SiT's own code runs the other way.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from study.config import (
    BackboneConfig,
    ConfigError,
    LatentSpec,
    SamplerConfig,
    SamplingMethod,
    SiTConfig,
)
from study.distributed import mine, whole
from study.generators.backbone import Transformer
from study.generators.common import Batch, SampleNoise, guidance_at, guided, times

Velocity = Callable[[Tensor, float], Tensor]
"""x_t (B c h w) and t to the velocity."""
Moment = TypeVar("Moment", Tensor, float)


def interpolant(path: str, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha_t, sigma_t and their derivatives: x_t = alpha_t x_0 + sigma_t eps [SiT, Sec. 2.2].

    `linear`: alpha = 1 - t, sigma = t. `gvp`: alpha = cos(pi t / 2), sigma = sin(pi t / 2).
    """
    if path == "linear":
        return 1 - t, t, -torch.ones_like(t), torch.ones_like(t)
    quarter = math.pi / 2
    return (
        torch.cos(quarter * t),
        torch.sin(quarter * t),
        -quarter * torch.sin(quarter * t),
        quarter * torch.cos(quarter * t),
    )


def shifted(t: Moment, shift: float) -> Moment:
    """Times moved towards noise by a factor, 0 and 1 fixed [2403.03206, Eq. 23]."""
    return shift * t / (1 + (shift - 1) * t)


def score_from_velocity(path: str, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Score of p_t: (alpha v - alpha' x) / (sigma (alpha' sigma - alpha sigma')) [SiT, Eq. 9]."""
    alpha, sigma, d_alpha, d_sigma = interpolant(path, times(t, x.ndim))
    return (alpha * velocity - d_alpha * x) / (sigma * (d_alpha * sigma - alpha * d_sigma))


class SiT:
    """Objective and samplers of SiT."""

    needs_images = False

    def __init__(self, config: SiTConfig) -> None:
        self.config = config
        self.weights = {"velocity": 1.0}

    def build(self, backbone: BackboneConfig, spec: LatentSpec) -> nn.Module:
        """The shared transformer with as many outputs as inputs."""
        return Transformer(backbone, spec.channels, spec.channels, spec.side, spec.num_classes)

    def noised(self, batch: Batch, numbers: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """x_t, t (of U(0, 1), shifted) and the velocity alpha' x_0 + sigma' eps of a batch."""
        x = batch.latents
        if x is None:
            raise ValueError("batch.latents: must be given for a continuous generator")
        count, shape = whole(len(x)), x.shape[1:]
        t = mine(torch.rand(count, generator=numbers, device=x.device))
        t = shifted(t, self.config.time_shift)
        noise = mine(torch.randn((count, *shape), generator=numbers, device=x.device))
        alpha, sigma, d_alpha, d_sigma = interpolant(self.config.path, times(t, x.ndim))
        return alpha * x + sigma * noise, t, d_alpha * x + d_sigma * noise

    def terms(
        self, network: nn.Module, batch: Batch, numbers: torch.Generator
    ) -> dict[str, Tensor]:
        """Mean squared error of the velocity [SiT, Eq. 7]."""
        x_t, t, velocity = self.noised(batch, numbers)
        return {"velocity": (network(x_t, t, batch.labels) - velocity).square().mean()}

    def sample(
        self,
        network: nn.Module,
        spec: LatentSpec,
        labels: Tensor,
        noise: SampleNoise,
        sampler: SamplerConfig,
        num_steps: int,
    ) -> Tensor:
        """Integrate from noise to data; B c h w, standardised."""
        x = noise.normal((spec.channels, spec.side, spec.side))

        def velocity(x: Tensor, t: float) -> Tensor:
            moment, scale = torch.full((len(x),), t, device=x.device), guidance_at(sampler, t)
            null, channels = spec.num_classes, sampler.cfg_channels
            return guided(network, x, moment, labels, null, scale, channels)

        shift = self.config.time_shift
        match sampler.method:
            case SamplingMethod.euler:
                return integrate_ode(velocity, x, num_steps, second_order=False, shift=shift)
            case SamplingMethod.heun:
                return integrate_ode(velocity, x, num_steps, second_order=True, shift=shift)
            case SamplingMethod.dopri5:
                return integrate_adaptively(velocity, x, sampler.rtol or 0.0, sampler.atol or 0.0)
            case SamplingMethod.euler_maruyama:
                last, path = sampler.last_step or 0.0, self.config.path
                return integrate_sde(velocity, x, num_steps, last, noise, path, shift)
            case method:
                known = "euler, heun, dopri5 or euler_maruyama"
                raise ValueError(f"method = {method.value}: must be {known}")


def integrate_ode(
    velocity: Velocity, x: Tensor, num_steps: int, second_order: bool, shift: float = 1.0
) -> Tensor:
    """Probability-flow ODE from t = 1 to 0 in equal steps, shifted, by Euler or Heun."""
    moments = shifted(torch.linspace(1, 0, num_steps + 1), shift).tolist()
    for now, then in pairwise(moments):
        slope = velocity(x, now)
        ahead = x + (then - now) * slope
        if second_order:
            ahead = x + (then - now) * 0.5 * (slope + velocity(ahead, then))
        x = ahead
    return x


def integrate_adaptively(velocity: Velocity, x: Tensor, rtol: float, atol: float) -> Tensor:
    """Probability-flow ODE from t = 1 to 0 by Dormand and Prince's fifth order (torchdiffeq).

    The steps suit the worst sample of the batch, so the batch matters, within the tolerance.

    Raises:
        ConfigError: torchdiffeq is not installed.
    """
    try:
        from torchdiffeq import odeint  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("method = 'dopri5': needs package torchdiffeq; install it") from None

    def worst(error: Tensor) -> Tensor:
        return error.reshape(len(x), -1).square().mean(1).max().sqrt()

    ends = torch.tensor([1.0, 0.0], dtype=x.dtype, device=x.device)
    solution = odeint(
        lambda t, x: velocity(x, float(t)),
        x,
        ends,
        rtol=rtol,
        atol=atol,
        method="dopri5",
        options={"norm": worst},
    )
    assert isinstance(solution, Tensor)
    return solution[-1]


def integrate_sde(
    velocity: Velocity,
    x: Tensor,
    num_steps: int,
    last_step: float,
    noise: SampleNoise,
    path: str,
    shift: float = 1.0,
) -> Tensor:
    """Reverse SDE by Euler-Maruyama, diffusion sigma_t, one network call a step [SiT, Sec. 2.4].

    num_steps - 1 equal steps from t = 1 to `last_step`, shifted, then one noise-free step to 0.
    """
    moments = shifted(torch.linspace(1, last_step, num_steps), shift).tolist()

    def drift(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        moment = torch.full((len(x),), t, device=x.device)
        v = velocity(x, t)
        sigma = interpolant(path, times(moment, x.ndim))[1]
        return v - sigma * score_from_velocity(path, v, x, moment), sigma

    for now, then in pairwise(moments):
        slope, sigma = drift(x, now)
        kick = torch.sqrt(2 * sigma * (now - then)) * noise.normal(tuple(x.shape[1:]))
        x = x + (then - now) * slope + kick
    return x - shifted(last_step, shift) * drift(x, moments[-1])[0]
