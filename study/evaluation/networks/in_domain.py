"""In-domain networks: what measures, what trains autoencoders and what REPA aligns with.

Four roles, four architectures and seeds, trained on the study's own training images: to classify
them or, the second of the two that measure, without their labels. No weights are shared: a network
that measures never trains anything.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from study.config import ConfigError, NetworkConfig


class InDomainNetwork(nn.Module):
    """Feature levels, an embedding and a linear classifier; the base of the four architectures.

    Trained without labels (num_classes 0) it has no classifier, and features are its output.

    Batch normalisation, since it learns in hundreds of steps what group normalisation needs
    thousands for; networks are only ever used frozen, where it is a fixed affine map.
    """

    def __init__(self, widths: list[int], features: int, num_classes: int) -> None:
        super().__init__()
        pairs = zip([3, *widths[:-1]], widths, strict=True)
        self.stages = nn.ModuleList(
            self.stage(before, after, level) for level, (before, after) in enumerate(pairs)
        )
        self.embed = nn.Conv2d(widths[-1], features // 2, 1)
        self.classify = nn.Linear(features, num_classes) if num_classes else nn.Identity()

    def stage(self, before: int, after: int, level: int) -> nn.Module:
        """One resolution level."""
        raise TypeError(f"{type(self).__name__}: must define stage()")

    def levels(self, images: Tensor) -> list[Tensor]:
        """Feature maps of every level, for images in [-1, 1], B 3 H W."""
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps

    def grid(self, images: Tensor) -> Tensor:
        """Features on the last level's grid, B D/2 h w."""
        return self.embed(self.levels(images)[-1])

    def features(self, images: Tensor) -> Tensor:
        """Mean and maximum of the grid over the image, B D."""
        grid = self.grid(images)
        return torch.cat([grid.mean((2, 3)), grid.amax((2, 3))], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits, B K."""
        return self.classify(self.features(images))


def _convolution(before: int, after: int, side: int, stride: int = 1, groups: int = 1) -> nn.Module:
    padding = side // 2 if stride < side else 0
    return nn.Sequential(
        nn.Conv2d(before, after, side, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


class ResidualNetwork(InDomainNetwork):
    """A strided convolution and a residual block per level (role extractor)."""

    def stage(self, before: int, after: int, level: int) -> nn.Module:
        """The first level keeps the resolution and has no block: it is the most expensive."""
        if level == 0:
            return _convolution(before, after, 3)
        block = _Residual(_convolution(after, after, 3))
        return nn.Sequential(_convolution(before, after, 3, stride=2), block)


class PlainNetwork(InDomainNetwork):
    """Pooling and two convolutions per level, in the manner of VGG (role perceptual)."""

    def stage(self, before: int, after: int, level: int) -> nn.Module:
        """The first level has one convolution."""
        if level == 0:
            return _convolution(before, after, 3)
        return nn.Sequential(
            nn.AvgPool2d(2), _convolution(before, after, 3), _convolution(after, after, 3)
        )


class PatchNetwork(InDomainNetwork):
    """Non-overlapping patches, then depthwise and pointwise mixing (role target)."""

    def stage(self, before: int, after: int, level: int) -> nn.Module:
        """Every level halves the resolution."""
        mixer = nn.Sequential(
            _convolution(after, after, 5, groups=after), _convolution(after, after, 1)
        )
        return nn.Sequential(_convolution(before, after, 2, stride=2), _Residual(mixer))


class BottleneckNetwork(InDomainNetwork):
    """Pooling, then a residual bottleneck per level (role extractor_self_supervised)."""

    def stage(self, before: int, after: int, level: int) -> nn.Module:
        """The first level keeps the resolution and has no block: it is the most expensive."""
        if level == 0:
            return _convolution(before, after, 3)
        narrow = after // 2
        body = nn.Sequential(
            _convolution(after, narrow, 1),
            _convolution(narrow, narrow, 3),
            _convolution(narrow, after, 1),
        )
        return nn.Sequential(nn.AvgPool2d(2), _convolution(before, after, 3), _Residual(body))


class _Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


_ARCHITECTURES = {
    "residual": ResidualNetwork,
    "plain": PlainNetwork,
    "patch": PatchNetwork,
    "bottleneck": BottleneckNetwork,
}


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
    state = network.state_dict().items()
    weights = {k: (v.half() if v.is_floating_point() else v).cpu() for k, v in state}
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
        ConfigError: what it holds was not written by `save_network`.
    """
    file = folder / "network.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; made by stage train_network")
    try:
        network = build_network(**json.loads(file.read_text()))
        network.load_state_dict(load_file(folder / "network.safetensors"))
    except Exception as error:
        # Whatever a foreign or damaged file makes the readers raise.
        text = " ".join(str(error).split())[:120]
        cure = "remove it and run dvc repro: made by stage train_network"
        raise ConfigError(f"{folder}: not a network ({text}); {cure}") from None
    return network.to(device).eval().requires_grad_(False)
