"""In-domain networks: what measures, what trains autoencoders and what REPA aligns with.

Three roles, three architectures and seeds, trained by classifying the study's own training images.
No weights are shared: a network that measures never trains anything.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from study.config import NetworkConfig


class InDomainNetwork(nn.Module):
    """Feature levels and a linear classifier; the base of the three architectures."""

    def __init__(self, widths: list[int], features: int, num_classes: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            self.stage(before, after, level)
            for level, (before, after) in enumerate(zip([3, *widths], widths, strict=False))
        )
        self.embed = nn.Conv2d(widths[-1], features, 1)
        self.classify = nn.Linear(features, num_classes)

    def stage(self, before: int, after: int, level: int) -> nn.Module:
        """One resolution level."""
        raise TypeError("use a subclass")

    def levels(self, images: Tensor) -> list[Tensor]:
        """Feature maps of every level, for images in [-1, 1], B 3 H W."""
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps

    def grid(self, images: Tensor) -> Tensor:
        """Features on the last level's grid, B D h w."""
        return self.embed(self.levels(images)[-1])

    def features(self, images: Tensor) -> Tensor:
        """Features pooled over the image, B D."""
        return functional.silu(self.grid(images)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Class logits, B K."""
        return self.classify(self.features(images))


class ResidualNetwork(InDomainNetwork):
    """Pre-activation residual blocks with group normalisation (role extractor)."""

    def stage(self, before: int, after: int, level: int) -> nn.Module:
        """A strided convolution and a residual block."""
        stride = 1 if level == 0 else 2
        return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), _Residual(after))


class PlainNetwork(InDomainNetwork):
    """Convolutions and rectifiers in the manner of VGG (role perceptual)."""

    def stage(self, before: int, after: int, level: int) -> nn.Module:
        """Two convolutions after pooling."""
        pool = [] if level == 0 else [nn.AvgPool2d(2)]
        return nn.Sequential(
            *pool,
            nn.Conv2d(before, after, 3, 1, 1),
            nn.GroupNorm(4, after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1),
            nn.ReLU(),
        )


class PatchNetwork(InDomainNetwork):
    """Non-overlapping patches, then depthwise mixing (role target)."""

    def stage(self, before: int, after: int, level: int) -> nn.Module:
        """A patch embedding and a depthwise-separable block."""
        return nn.Sequential(nn.Conv2d(before, after, 2, 2), _Mixer(after))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class _Mixer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, groups=width),
            nn.GroupNorm(4, width),
            nn.Conv2d(width, 2 * width, 1),
            nn.GELU(),
            nn.Conv2d(2 * width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


_ARCHITECTURES = {"residual": ResidualNetwork, "plain": PlainNetwork, "patch": PatchNetwork}


def build_network(
    architecture: str, widths: list[int], features: int, num_classes: int
) -> InDomainNetwork:
    """A network with fresh weights."""
    return _ARCHITECTURES[architecture](widths, features, num_classes)


def save_network(
    network: InDomainNetwork, config: NetworkConfig, num_classes: int, folder: Path
) -> None:
    """Write fp16 weights and the architecture."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.half().contiguous().cpu() for k, v in network.state_dict().items()}
    description = {
        "architecture": config.architecture,
        "widths": config.widths,
        "features": config.features,
        "num_classes": num_classes,
    }
    save_file(weights, folder / "network.safetensors")
    (folder / "network.json").write_text(json.dumps(description, indent=1) + "\n")


def load_network(folder: Path, device: torch.device | str = "cpu") -> InDomainNetwork:
    """Read a trained network, frozen, in fp32.

    Raises:
        FileNotFoundError: the folder holds no network.
    """
    file = folder / "network.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; made by stage train_network")
    network = build_network(**json.loads(file.read_text()))
    weights = {k: v.float() for k, v in load_file(folder / "network.safetensors").items()}
    network.load_state_dict(weights)
    return network.to(device).eval().requires_grad_(False)


class PerceptualDistance(nn.Module):
    """Distance between unit-normalised feature maps of a frozen in-domain network.

    Sum over levels of the mean squared difference of channel-normalised features, as LPIPS without
    its learned weights [Zhang et al. 2018, 1801.03924, Eq. 1].
    """

    def __init__(self, network: InDomainNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Per-image distance, B; images in [-1, 1], B 3 H W."""
        total = torch.zeros(len(images), device=images.device)
        maps = zip(self.network.levels(images), self.network.levels(others), strict=True)
        for ours, theirs in maps:
            difference = _unit(ours) - _unit(theirs)
            total = total + difference.square().sum(1).mean((1, 2))
        return total


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(1, keepdim=True) + 1e-10).sqrt()
