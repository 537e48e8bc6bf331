from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder
from study.autoencoders.monitor import Views
from study.autoencoders.train import train_autoencoder
from study.config import ArmConfig, AutoencoderTrainingConfig, Family, ScaleMode
from study.evaluation.networks.perceptual import PerceptualDistance


class Trained(NamedTuple):
    """What came out of training."""

    weights: dict[str, Tensor]
    log: list[dict[str, float]]

    def same_weights(self, other: "Trained") -> bool:
        """Bit for bit."""
        return all(torch.equal(value, other.weights[name]) for name, value in self.weights.items())


@pytest.fixture
def trained(
    make_autoencoder: Callable[[Family], Autoencoder],
    images: np.ndarray,
    perceptual: PerceptualDistance,
) -> Callable[..., Trained]:
    """Train a fresh tiny autoencoder."""

    def run(
        config: AutoencoderTrainingConfig,
        arm: ArmConfig | None,
        family: Family = Family.kl,
        seed: int = 0,
    ) -> Trained:
        autoencoder = make_autoencoder(family)
        log: list[dict[str, float]] = []
        train_autoencoder(
            autoencoder,
            images,
            config,
            arm,
            Views(perceptual),
            seed,
            lambda step, values: log.append({"step": step, **values}),
        )
        assert not autoencoder.training
        assert all(p.requires_grad for p in autoencoder.parameters())
        return Trained(autoencoder.state_dict(), log)

    return run


@pytest.fixture
def plain(make_arm: Callable[..., ArmConfig]) -> ArmConfig:
    """No transform at all."""
    return make_arm(
        equivariance_probability=0.0,
        low_resolution_probability=0.0,
        scale=ScaleMode.none,
        rotation=False,
    )
