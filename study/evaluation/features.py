"""Images to features: one adapter per extractor, one pass for all that is measured in features."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from study import paths
from study.config import ConfigError, EvaluationConfig, Extractor, StudyError
from study.data.store import to_float
from study.evaluation.distances import Array
from study.evaluation.networks.in_domain import load_network

SELF_SUPERVISED = "in_domain_self_supervised"
"""Name of the second in-domain extractor, trained without labels."""
SPATIAL_CHANNELS = 7
"""Of Inception's third block of 17 x 17, as in ADM's sFID."""
SPATIAL_SIDE = 4
"""In-domain: side to which the grid is averaged."""


@dataclass(slots=True)
class Features:
    """What one pass over N images gives, float32."""

    vectors: Array
    """N D."""
    spatial: Array
    """N S: features with their place in the image."""
    logits: Array
    """N K: class logits, without bias for Inception [ADM]; the vectors where there is none."""

    @classmethod
    def joined(cls, parts: "list[Features]") -> "Features":
        """The features of several batches."""
        names = (item.name for item in fields(cls))
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __getitem__(self, rows: object) -> "Features":
        return Features(self.vectors[rows], self.spatial[rows], self.logits[rows])  # type: ignore

    def __len__(self) -> int:
        return len(self.vectors)


class FeatureExtractor:
    """uint8 images to features; knows its name and dimension."""

    def __init__(self, name: str, network: nn.Module, device: torch.device) -> None:
        self.name, self.network, self.device = name, network, device
        self._grid: Tensor | None = None
        layer = network.Mixed_6d if name == Extractor.inception.value else network.embed
        layer.register_forward_hook(self._keep)  # pyright: ignore

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._grid = output

    def __call__(self, images: Tensor) -> np.ndarray:
        """Feature vectors of images, uint8 B 3 H W; float32 B D."""
        return self.everything(images).vectors

    @torch.inference_mode()
    def everything(self, images: Tensor) -> Features:
        """All features of images, uint8 B 3 H W."""
        images = images.to(self.device)
        if self.name == Extractor.inception.value:
            vectors, logits = self.network(images)
        else:
            vectors = self.network.features(to_float(images))  # pyright: ignore
            logits = self.network.classify(vectors)  # pyright: ignore
        spatial = self._spatial(vectors.shape[1])
        return Features(*(each.float().cpu().numpy() for each in (vectors, spatial, logits)))

    def _spatial(self, dimension: int) -> Tensor:
        """Inception: 7 channels at 17 x 17, channels last, as ADM lays them out.

        In-domain: the last grid averaged to 4 x 4, as many of its first channels as stay within the
        dimension of the vectors, so that the same n is enough for both.
        """
        grid, self._grid = self._grid, None
        assert grid is not None
        if self.name == Extractor.inception.value:
            grid = grid[:, :SPATIAL_CHANNELS]
        else:
            grid = functional.adaptive_avg_pool2d(grid, min(SPATIAL_SIDE, *grid.shape[-2:]))
            grid = grid[:, : max(1, dimension // grid[0, 0].numel())]
        return grid.permute(0, 2, 3, 1).flatten(1)

    def all(self, batches: Iterable[Tensor]) -> Features:
        """Features of all batches; errors as those of `joined`."""
        return self.joined([self.everything(batch) for batch in batches])

    def joined(self, parts: list[Features]) -> Features:
        """Features of several batches as those of one set.

        Raises:
            StudyError: no batch, or a feature is not finite.
        """
        if not parts:
            raise StudyError("features of no image: the set must not be empty")
        features = Features.joined(parts)
        for item in fields(features):
            if not np.isfinite(getattr(features, item.name)).all():
                raise StudyError(f"{self.name}: a feature is not finite")
        return features


def load_second_extractor(network: Path, device: torch.device) -> FeatureExtractor:
    """The in-domain extractor trained without labels.

    Args:
        network: folder of the in-domain network of role extractor_self_supervised.
        device: where it runs.
    """
    return FeatureExtractor(SELF_SUPERVISED, load_network(network, device), device)


def load_extractor(
    config: EvaluationConfig, in_domain: Path, device: torch.device
) -> FeatureExtractor:
    """The configured extractor.

    Args:
        config: which one, and where Inception's weights are.
        in_domain: folder of the in-domain network of role extractor.
        device: where it runs.

    Raises:
        ConfigError: the weights file of Inception is missing, or is not what it should be.
    """
    if config.extractor is Extractor.in_domain:
        return FeatureExtractor("in_domain", load_network(in_domain, device), device)
    file = paths.ROOT / str(config.weights)
    if not file.is_file():
        raise ConfigError(f"{config.weights}: no such file; put torch-fidelity's Inception there")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        # torch-fidelity itself would unpickle anything.
        torch.load(file, map_location="cpu", weights_only=True)
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat",
            ["2048", "logits_unbiased"],
            feature_extractor_weights_path=str(file),
        )
    except Exception:
        # Whatever a foreign or damaged file makes the readers raise.
        rule = "must be torch-fidelity's Inception, a PyTorch file of tensors only"
        raise ConfigError(f"{config.weights}: {rule}") from None
    return FeatureExtractor("inception", network.to(device).eval(), device)
