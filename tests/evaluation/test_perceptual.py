import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from study import paths
from study.config import ConfigError, NetworkConfig, Role
from study.data.store import to_float
from study.evaluation.networks.in_domain import InDomainNetwork, save_network
from study.evaluation.networks.perceptual import (
    LPIPS,
    PerceptualDistance,
    lpips_vgg,
    perceptual_distance,
)

lpips = pytest.importorskip("lpips", reason="package lpips is not installed")

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Random features of torchvision's VGG16, small biases."""
    torch.manual_seed(0)
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    return {f"features.{name}": value for name, value in layers.state_dict().items()}


@pytest.fixture(scope="module")
def file(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def distance(file: Path) -> LPIPS:
    return lpips_vgg(file, "cpu")


@pytest.fixture
def x(images: np.ndarray) -> Tensor:
    return to_float(torch.from_numpy(images[:4]))


def by_hand(weights: Weights, images: Tensor, others: Tensor) -> Tensor:
    """[Zhang et al. 2018, Eq. 1], from VGG16's layers and the package's linear weights."""
    file = Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth"
    linear = torch.load(file, map_location="cpu", weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    maps = [(each - shift) / scale for each in (images, others)]
    total, position = torch.zeros(len(images)), 0
    for level, convolutions in enumerate((2, 2, 3, 3, 3)):
        if level:
            maps, position = [functional.max_pool2d(m, 2) for m in maps], position + 1
        for _ in range(convolutions):
            name = f"features.{position}"
            kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            maps = [functional.relu(functional.conv2d(m, kernel, bias, padding=1)) for m in maps]
            position += 2
        ours, theirs = (m / (m.square().sum(1, keepdim=True).sqrt() + 1e-10) for m in maps)
        weighted = (ours - theirs).square() * linear[f"lin{level}.model.1.weight"]
        total += weighted.sum(1).mean((1, 2))
    return total


def test_distance_is_that_of_the_paper(distance: LPIPS, weights: Weights, x: Tensor) -> None:
    other = x.flip(-1)
    found = distance(x, other)
    assert found.shape == (4,)
    torch.testing.assert_close(found, by_hand(weights, x, other), rtol=1e-4, atol=1e-7)
    assert (found > 1e-5).all()


def test_distance_of_an_image_to_itself_is_zero(distance: LPIPS, x: Tensor) -> None:
    assert torch.equal(distance(x, x), torch.zeros(4))


def test_small_images_are_enlarged(distance: LPIPS, x: Tensor) -> None:
    small, other = x[..., :6, :6], x[..., 6:12, 6:12]
    large = (i.repeat_interleave(3, -1).repeat_interleave(3, -2) for i in (small, other))
    assert torch.equal(distance(small, other), distance(*large))


def test_it_is_frozen_and_gradient_reaches_the_images(distance: LPIPS, x: Tensor) -> None:
    assert not distance.training
    assert not any(p.requires_grad for p in distance.parameters())
    moved = (x + 0.1).requires_grad_(True)
    distance(moved, x).sum().backward()
    assert moved.grad is not None
    assert moved.grad.any()


def test_nothing_is_downloaded_and_no_random_number_taken(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("download")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    torch.manual_seed(5)
    lpips_vgg(file, "cpu")
    found = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(found, torch.rand(3))


def test_weights_may_be_safetensors(
    distance: LPIPS, weights: Weights, x: Tensor, tmp_path: Path
) -> None:
    classifier = {"classifier.0.weight": torch.zeros(2, 2)}
    save_file(weights | classifier, tmp_path / "vgg16.safetensors")
    other = lpips_vgg(tmp_path / "vgg16.safetensors", "cpu")
    assert torch.equal(other(x, x.flip(-1)), distance(x, x.flip(-1)))


@pytest.mark.parametrize("name", ["vgg16.pth", "vgg16.safetensors"])
def test_a_file_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ConfigError, match=rf"{name}: must be a safetensors or PyTorch file of"):
        lpips_vgg(tmp_path / name, "cpu")


def test_weights_of_another_network_are_refused(weights: Weights, tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({k: v for k, v in weights.items() if k != "features.28.bias"}, file)
    with pytest.raises(ConfigError, match=r"other\.pth: no weight 'features\.28\.bias': must be"):
        lpips_vgg(file, "cpu")
    torch.save(weights | {"features.0.weight": torch.zeros(8, 3, 3, 3)}, file)
    with pytest.raises(
        ConfigError, match=r"other\.pth: weights of another shape: must be torchvision's VGG16"
    ):
        lpips_vgg(file, "cpu")


def test_the_file_chooses_between_lpips_and_the_network(
    file: Path, network: InDomainNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "ROOT", file.parent)
    assert perceptual_distance(file.name, tmp_path / "none", "cpu")[0] == "lpips"
    config = NetworkConfig(
        role=Role.extractor, architecture="plain", widths=[4, 8], features=8, seed=0
    )
    save_network(network, config, 4, tmp_path)
    # Without the package, too.
    monkeypatch.setitem(sys.modules, "lpips", None)
    name, module = perceptual_distance(None, tmp_path, "cpu")
    assert name == "perceptual_in_domain"
    assert isinstance(module, PerceptualDistance)
    with pytest.raises(ConfigError, match=r"vgg16\.pth: package lpips is not installed; pip inst"):
        perceptual_distance(file.name, tmp_path, "cpu")
    with pytest.raises(ConfigError, match=r"^weights/vgg16\.pth: no such file; put torchvision's"):
        perceptual_distance("weights/vgg16.pth", tmp_path, "cpu")
