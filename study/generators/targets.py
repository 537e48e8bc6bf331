"""What REPA aligns with: frozen features of images, one for each token of the generator."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from study import paths
from study.config import AlignmentTarget, ConfigError, REPAConfig
from study.evaluation.networks.in_domain import InDomainNetwork, load_network

PATCH = 14
"""Patch side of DINOv2."""
IMAGE_SIDE = 518
"""Of the images whose positions its weights hold; they are resampled to those of the tokens."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in [0, 1], by which DINOv2's inputs are normalised."""


class Target(Protocol):
    """A frozen encoder."""

    name: str
    """As tables show it."""
    channels: int

    def tokens(self, images: Tensor, grid: int) -> Tensor:
        """Features B N D, row by row on a grid x grid, of images B 3 H W in [-1, 1]."""
        ...


class InDomainTarget:
    """The study's own network of role target, on its own grid."""

    name = AlignmentTarget.in_domain.value

    def __init__(self, network: InDomainNetwork) -> None:
        self.network = network
        self.channels = network.embed.out_channels

    @torch.no_grad()
    def tokens(self, images: Tensor, grid: int) -> Tensor:
        """Features B N D.

        Raises:
            ConfigError: the network's grid is not that of the tokens.
        """
        maps = self.network.grid(images)
        if maps.shape[-1] != grid:
            rule = f"must be that of the tokens, {grid}; change the network's number of widths"
            raise ConfigError(f"target in_domain: grid side = {maps.shape[-1]}: {rule}")
        return maps.flatten(2).transpose(1, 2)


class DINOv2Target:
    """DINOv2 [2304.07193] through timm: normalised patch tokens of the last layer, as REPA.

    The image is resized so that each token has one patch (256 pixels: 224, as published).
    """

    def __init__(self, model: Any, name: str, device: torch.device) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.name, self.channels = name, model.embed_dim
        self.mean, self.std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (_MEAN, _STD)
        )

    @torch.no_grad()
    def tokens(self, images: Tensor, grid: int) -> Tensor:
        """Features B N D."""
        images = ((images + 1) / 2 - self.mean) / self.std
        side = (grid * PATCH, grid * PATCH)
        images = functional.interpolate(images, side, mode="bicubic", align_corners=False)
        return self.model.forward_features(images)[:, self.model.num_prefix_tokens :]


def load_target(config: REPAConfig, folder: Path, device: torch.device) -> Target:
    """The target of a configuration, frozen.

    Args:
        config: names the encoder and its weights.
        folder: of the in-domain network.
        device: where to put it.

    Raises:
        ConfigError: timm is missing, or the weights cannot be read or are those of another model.
        FileNotFoundError: there is no in-domain network.
    """
    if config.target is AlignmentTarget.in_domain:
        return InDomainTarget(load_network(folder, device))
    return DINOv2Target(_dinov2(config), config.target.value, device)


def _dinov2(config: REPAConfig) -> nn.Module:
    weights = str(config.target_weights)
    local = paths.ROOT / weights if weights.startswith("weights/") else None
    name = f"vit_{config.target.value.removeprefix('dinov2_')}_patch14_dinov2"
    try:
        import timm
    except ImportError:
        raise ConfigError(f"target = {config.target.value!r}: needs package timm") from None
    try:
        if local and local.suffix != ".safetensors":
            # timm itself would unpickle anything.
            torch.load(local, map_location="cpu", weights_only=True)
        return timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(local)} if local else {"hf_hub_id": weights},
            num_classes=0,
            img_size=IMAGE_SIDE,
            dynamic_img_size=True,
        )
    except Exception as error:  # whatever the library, a hub or a broken file raises
        given = f"target_weights = {weights!r}: not readable as weights of {name}"
        raise ConfigError(f"{given}: {' '.join(str(error).split())[:200]}") from None
