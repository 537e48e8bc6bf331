from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from study.autoencoders.models import Autoencoder, Posterior, Quantised
from study.config import EvaluateAutoencoderConfig
from study.evaluation.comparison import Judges
from study.evaluation.distances import statistics
from study.evaluation.features import FeatureExtractor
from study.evaluation.networks.in_domain import InDomainNetwork
from study.evaluation.networks.perceptual import PerceptualDistance

Map = Callable[[Tensor], Tensor]
CPU = torch.device("cpu")


class FunctionAutoencoder(nn.Module):
    """An autoencoder made of functions; with a codebook if it has a function to tokens."""

    latent_side = Autoencoder.latent_side

    def __init__(self, factor: int, encode: Map, decode: Map, tokens: Map | None = None) -> None:
        super().__init__()
        self.factor, self.maps, self.tokens = factor, (encode, decode), tokens
        self.weight = nn.Parameter(torch.zeros(()))
        self.logvar: float | None = None

    @property
    def discrete(self) -> bool:
        return self.tokens is not None

    @property
    def codebook_size(self) -> int:
        return 8

    @property
    def channels(self) -> int:
        return self.maps[0](torch.zeros(1, 3, self.factor, self.factor)).shape[1]

    def encode(self, images: Tensor) -> Posterior:
        mean = self.maps[0](images)
        spread = None if self.logvar is None else torch.full_like(mean, self.logvar)
        return Posterior(mean, spread)

    def decode(self, latents: Tensor) -> Tensor:
        return self.maps[1](latents)

    def quantise(self, features: Tensor) -> Quantised:
        assert self.tokens is not None
        return Quantised(features, self.tokens(features), self.weight, self.weight)


@pytest.fixture
def autoencoder_of() -> Callable[..., Autoencoder]:
    def make(
        factor: int,
        encode: Map,
        decode: Map,
        tokens: Map | None = None,
        logvar: float | None = None,
    ) -> Autoencoder:
        made = FunctionAutoencoder(factor, encode, decode, tokens)
        made.logvar = logvar
        return cast(Autoencoder, made)

    return make


@pytest.fixture
def pooling(autoencoder_of: Callable[..., Autoencoder]) -> Autoencoder:
    """Averages 2 x 2 pixels and repeats them."""
    return autoencoder_of(2, lambda x: functional.avg_pool2d(x, 2), _repeat)


@pytest.fixture
def unshuffling(autoencoder_of: Callable[..., Autoencoder]) -> Autoencoder:
    """Lays the pixels of 2 x 2 out as channels: lossless, and not equivariant."""
    return autoencoder_of(
        2, lambda x: functional.pixel_unshuffle(x, 2), lambda z: functional.pixel_shuffle(z, 2)
    )


@pytest.fixture
def identity(autoencoder_of: Callable[..., Autoencoder]) -> Autoencoder:
    return autoencoder_of(1, lambda x: x, lambda z: z)


@pytest.fixture
def extractor(network: InDomainNetwork) -> FeatureExtractor:
    return FeatureExtractor("in_domain", network, CPU)


@pytest.fixture
def judges(
    extractor: FeatureExtractor, perceptual: PerceptualDistance, images: np.ndarray
) -> Judges:
    reference = statistics(extractor(torch.from_numpy(images[::-1].copy())) + 1)
    return Judges(extractor, reference, ("perceptual_in_domain", perceptual))


@pytest.fixture
def settings() -> EvaluateAutoencoderConfig:
    return EvaluateAutoencoderConfig(
        num_images=16, batch_size=6, scales=[0.25, 0.5], intrinsic_dimension_images=[10, 16]
    )


def _repeat(latents: Tensor) -> Tensor:
    return latents.repeat_interleave(2, -1).repeat_interleave(2, -2)
