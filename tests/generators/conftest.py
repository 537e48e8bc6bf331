from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.autoencoders.models import Autoencoder
from study.config import (
    AlignmentTarget,
    BackboneConfig,
    DiTConfig,
    GeneratorConfig,
    MaskGITConfig,
    Objective,
    REPAConfig,
    SamplerConfig,
    SamplingMethod,
    SiTConfig,
    Weights,
    load_group,
)
from study.evaluation.networks.in_domain import build_network
from study.generators.targets import InDomainTarget
from study.latents import LatentCache, write_cache


@pytest.fixture
def token_backbone(backbone: BackboneConfig) -> BackboneConfig:
    return replace(backbone, patch_size=1)


@pytest.fixture
def generators() -> dict[str, GeneratorConfig]:
    """Each objective as published, REPA small."""
    return {
        "dit": DiTConfig(
            objective=Objective.dit, num_timesteps=1000, beta_start=1e-4, beta_end=0.02
        ),
        "sit": load_group(SiTConfig, "generator", "sit"),
        "repa": REPAConfig(
            objective=Objective.repa,
            path="linear",
            time_shift=1.0,
            learning_rate_factor=1.0,
            steps_factor=1,
            projection_weight=0.5,
            target=AlignmentTarget.in_domain,
            target_weights=None,
        ),
        "maskgit": MaskGITConfig(
            objective=Objective.maskgit, schedule="cosine", label_smoothing=0.1, dropout=0.1
        ),
    }


@pytest.fixture
def make_sampler() -> Callable[..., SamplerConfig]:
    """A sampler by name, without guidance unless asked."""

    def make(name: str, **changes: Any) -> SamplerConfig:
        method = SamplingMethod(name)
        temperature = {"confidence": 4.5, "halton": 1.0}.get(name)
        adaptive = method is SamplingMethod.dopri5
        values = {
            "weights": Weights.ema,
            "cfg_scale": 1.0,
            "cfg_interval": [0.0, 1.0],
            "cfg_channels": None,
            "last_step": 0.04 if method is SamplingMethod.euler_maruyama else None,
            "rtol": 1e-3 if adaptive else None,
            "atol": 1e-6 if adaptive else None,
            "temperature": temperature,
        }
        return SamplerConfig(method=method, **(values | changes))

    return make


@pytest.fixture
def target() -> InDomainTarget:
    """A frozen network with a grid of 4 x 4 for images of 16 x 16, 4 channels."""
    torch.manual_seed(3)
    return InDomainTarget(build_network("patch", [4, 8], 8, 4).eval().requires_grad_(False))


@pytest.fixture
def as_module() -> Callable[[Callable[..., Tensor]], nn.Module]:
    """A function in the place of a network."""

    class Wrapped(nn.Module):
        def __init__(self, function: Callable[..., Tensor]) -> None:
            super().__init__()
            self.function = function

        def forward(self, *arguments: Tensor) -> Tensor:
            return self.function(*arguments)

    return Wrapped


@pytest.fixture
def latent_cache(
    tmp_path: Path, kl: Autoencoder, images: np.ndarray, labels: np.ndarray
) -> LatentCache:
    write_cache(tmp_path / "latents", kl, images, labels, 4, 0.5, 16, 100)
    return LatentCache(tmp_path / "latents")


@pytest.fixture
def token_cache(
    tmp_path: Path, vq: Autoencoder, images: np.ndarray, labels: np.ndarray
) -> LatentCache:
    write_cache(tmp_path / "tokens", vq, images, labels, 4, 1.0, 16, 100)
    return LatentCache(tmp_path / "tokens")


@pytest.fixture
def numbers() -> torch.Generator:
    return torch.Generator().manual_seed(0)
