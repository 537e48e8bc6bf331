from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.autoencoders.models import Autoencoder
from study.config import (
    BackboneConfig,
    DiTConfig,
    GeneratorConfig,
    MaskGITConfig,
    Objective,
    REPAConfig,
    SamplerConfig,
    SamplingMethod,
    SiTConfig,
)
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
        "sit": SiTConfig(objective=Objective.sit, path="linear"),
        "repa": REPAConfig(
            objective=Objective.repa,
            path="linear",
            projection_weight=0.5,
            projection_depth=1,
            projection_width=16,
        ),
        "maskgit": MaskGITConfig(
            objective=Objective.maskgit, schedule="cosine", label_smoothing=0.1
        ),
    }


@pytest.fixture
def make_sampler() -> Callable[..., SamplerConfig]:
    """A sampler by name, without guidance unless asked."""

    def make(name: str, cfg_scale: float = 1.0, temperature: float = 4.5) -> SamplerConfig:
        method = SamplingMethod(name)
        return SamplerConfig(
            method=method,
            cfg_scale=cfg_scale,
            last_step=0.04 if method is SamplingMethod.euler_maruyama else None,
            temperature=temperature if method is SamplingMethod.confidence else None,
        )

    return make


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
