"""Images to features: one adapter per extractor."""

from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import Tensor, nn

from study import paths
from study.config import ConfigError, EvaluationConfig, Extractor
from study.data.store import to_float
from study.evaluation.networks.in_domain import load_network


class FeatureExtractor:
    """uint8 images to feature vectors; knows its name and dimension."""

    def __init__(self, name: str, network: nn.Module, device: torch.device) -> None:
        self.name, self.network, self.device = name, network, device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> np.ndarray:
        """Features of images, uint8 B 3 H W; float32 B D."""
        images = images.to(self.device)
        if self.name == Extractor.inception.value:
            (features,) = self.network(images)
        else:
            features = self.network.features(to_float(images))  # pyright: ignore
        return features.float().cpu().numpy()

    def all(self, batches: Iterable[Tensor]) -> np.ndarray:
        """Features of all batches, N D.

        Raises:
            RuntimeError: no batch, or a feature is not finite.
        """
        rows = [self(batch) for batch in batches]
        if not rows:
            raise RuntimeError("features of no image: the set must not be empty")
        features = np.concatenate(rows)
        if not np.isfinite(features).all():
            raise RuntimeError(f"{self.name}: a feature is not finite")
        return features


def load_extractor(
    config: EvaluationConfig, in_domain: Path, device: torch.device
) -> FeatureExtractor:
    """The configured extractor.

    Args:
        config: which one, and where Inception's weights are.
        in_domain: folder of the in-domain network of role extractor.
        device: where it runs.

    Raises:
        ConfigError: the weights file of Inception is missing, or holds more than tensors.
    """
    if config.extractor is Extractor.in_domain:
        return FeatureExtractor("in_domain", load_network(in_domain, device), device)
    file = paths.ROOT / str(config.weights)
    if not file.is_file():
        raise ConfigError(f"{config.weights}: no such file; put torch-fidelity's Inception there")
    try:
        # torch-fidelity itself would unpickle anything.
        torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError):
        raise ConfigError(f"{config.weights}: must be a PyTorch file of tensors only") from None
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)
    )
    return FeatureExtractor("inception", network.to(device).eval(), device)
