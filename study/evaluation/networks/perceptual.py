"""Perceptual distance of image pairs: LPIPS where its weights are on disk, else in-domain."""

import warnings
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from study import paths
from study.acceleration import settled
from study.config import ConfigError
from study.evaluation.networks.in_domain import InDomainNetwork, load_network

_SMALLEST = 16
"""Pixels: VGG16 halves the side four times before its last level."""
# What the two readers raise on files of something else.
_UNREADABLE = (
    UnpicklingError,
    SafetensorError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
)


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
            difference = _unit(ours.float()) - _unit(theirs.float())
            total = total + difference.square().sum(1).mean((1, 2))
        return total


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(1, keepdim=True) + 1e-10).sqrt()


def perceptual_distance(
    lpips_weights: str | None, network_folder: Path, device: torch.device | str
) -> tuple[str, nn.Module]:
    """Name and module of a frozen distance: images and others in [-1, 1], B 3 H W, to B.

    Args:
        lpips_weights: file of torchvision's VGG16 below the root, for `lpips`; None: the in-domain
            network, `perceptual_in_domain`.
        network_folder: the in-domain network; not read for LPIPS.
        device: where it runs.

    Raises:
        ConfigError: no package lpips, no such file, or no VGG16 in it.
        FileNotFoundError: the folder holds no network.
    """
    if lpips_weights is not None:
        return "lpips", lpips_vgg(paths.ROOT / lpips_weights, device)
    network = settled(load_network(network_folder), device)
    return "perceptual_in_domain", PerceptualDistance(network)


class LPIPS(nn.Module):
    """LPIPS v0.1 on VGG16 [Zhang et al. 2018, 1801.03924]; frozen.

    Images of less than 16 pixels, which its last level cannot see, are enlarged by a whole factor.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Per-image distance, B; images in [-1, 1], B 3 H W."""
        factor = -(-_SMALLEST // min(images.shape[-2:]))
        if factor > 1:
            enlarged = (x.repeat_interleave(factor, -2) for x in (images, others))
            images, others = (x.repeat_interleave(factor, -1) for x in enlarged)
        return self.network(images, others).flatten()


def lpips_vgg(file: Path, device: torch.device | str) -> LPIPS:
    """LPIPS from a file of torchvision's VGG16 weights; its linear layers ship in package lpips.

    Nothing is downloaded: the package builds its VGG16 with random weights, which are replaced.

    Args:
        file: safetensors, or a PyTorch file of tensors only.
        device: where it runs.

    Raises:
        ConfigError: no package lpips, no such file, or no VGG16 in it.
    """
    shown = paths.shown(file)
    if not file.is_file():
        raise ConfigError(f"{shown}: no such file; put torchvision's VGG16 weights there")
    try:
        import lpips
    except ImportError:
        cure = "pip install lpips, or set lpips to null"
        raise ConfigError(f"{shown}: package lpips is not installed; {cure}") from None
    weights = _read(file)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # The package asks torchvision for a network in a way that this one deprecates.
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    # slice2.5.weight is torchvision's features.5.weight.
    names = {name: f"features.{name.partition('.')[2]}" for name in network.net.state_dict()}
    for name in names.values():
        if name not in weights:
            raise ConfigError(f"{shown}: no weight {name!r}: must be torchvision's VGG16")
    try:
        network.net.load_state_dict({name: weights[theirs] for name, theirs in names.items()})
    except RuntimeError:
        raise ConfigError(
            f"{shown}: weights of another shape: must be torchvision's VGG16"
        ) from None
    return settled(LPIPS(network), device).eval().requires_grad_(False)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE:
        weights = None
    if not isinstance(weights, dict):
        rule = "must be a safetensors or PyTorch file of tensors only"
        raise ConfigError(f"{paths.shown(file)}: {rule}")
    return weights
