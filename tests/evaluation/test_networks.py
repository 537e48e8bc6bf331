from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from study.config import NetworkConfig, Role
from study.evaluation.networks.in_domain import (
    InDomainNetwork,
    build_network,
    load_network,
    save_network,
)
from study.evaluation.networks.perceptual import PerceptualDistance

ARCHITECTURES = ["residual", "plain", "patch", "bottleneck"]
ROLES = dict(zip(ARCHITECTURES, Role, strict=True))


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(3, 3, 16, 16) * 2 - 1


def config_of(architecture: str) -> NetworkConfig:
    return NetworkConfig(
        role=ROLES[architecture], architecture=architecture, widths=[4, 8], features=8, seed=0
    )


def warmed(architecture: str, x: Tensor) -> InDomainNetwork:
    """A network whose batch norms have seen images, in eval mode."""
    torch.manual_seed(0)
    network = build_network(architecture, [4, 8], 8, 4)
    network(x)
    return network.eval()


@pytest.mark.parametrize(
    ("architecture", "sides"),
    [("residual", [16, 8]), ("plain", [16, 8]), ("patch", [8, 4]), ("bottleneck", [16, 8])],
)
def test_levels_halve_the_side(architecture: str, sides: list[int], x: Tensor) -> None:
    maps = build_network(architecture, [4, 8], 8, 4).levels(x)
    assert [tuple(m.shape) for m in maps] == [
        (3, width, side, side) for width, side in zip([4, 8], sides, strict=True)
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_are_mean_and_maximum_of_the_grid(architecture: str, x: Tensor) -> None:
    network = warmed(architecture, x)
    grid, features = network.grid(x), network.features(x)
    assert grid.shape[1] == 4
    assert torch.equal(features[:, :4], grid.mean((2, 3)))
    assert torch.equal(features[:, 4:], grid.flatten(2).max(2).values)
    assert network(x).shape == (3, 4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_is_reached(architecture: str, x: Tensor) -> None:
    network = build_network(architecture, [4, 8], 8, 4)
    network(x).square().sum().backward()
    unreached = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


def test_architectures_differ() -> None:
    names = [frozenset(build_network(a, [4, 8], 8, 4).state_dict()) for a in ARCHITECTURES]
    assert len(set(names)) == 4


def test_the_base_has_no_architecture() -> None:
    with pytest.raises(TypeError, match="must define stage"):
        InDomainNetwork([4], 8, 4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_networks_are_kept_in_half_precision(architecture: str, x: Tensor, tmp_path: Path) -> None:
    network = warmed(architecture, x)
    save_network(network, config_of(architecture), 4, tmp_path)
    stored = load_file(tmp_path / "network.safetensors")
    floating = [v for v in stored.values() if v.is_floating_point()]
    assert {v.dtype for v in floating} == {torch.float16}
    loaded = load_network(tmp_path)
    assert not loaded.training
    for name, value in loaded.state_dict().items():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            assert torch.equal(value, network.state_dict()[name].half().float())
    assert not any(p.requires_grad for p in loaded.parameters())
    torch.testing.assert_close(loaded.features(x), network.features(x), atol=5e-3, rtol=5e-3)


def test_saving_again_changes_nothing(x: Tensor, tmp_path: Path) -> None:
    save_network(warmed("plain", x), config_of("plain"), 4, tmp_path / "one")
    save_network(load_network(tmp_path / "one"), config_of("plain"), 4, tmp_path / "two")
    one, two = (load_network(tmp_path / name).state_dict() for name in ("one", "two"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_without_classes_features_are_the_output(x: Tensor, tmp_path: Path) -> None:
    network = build_network("bottleneck", [4, 8], 8, 0)
    network(x)
    save_network(network, config_of("bottleneck"), 0, tmp_path)
    loaded = load_network(tmp_path)
    assert torch.equal(loaded(x), loaded.features(x))


def test_a_missing_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"network\.json: no such file; made by stage"):
        load_network(tmp_path)


def test_distance_of_an_image_to_itself_is_zero(perceptual: PerceptualDistance, x: Tensor) -> None:
    assert torch.equal(perceptual(x, x), torch.zeros(3))


def test_distance_is_symmetric_and_positive(perceptual: PerceptualDistance, x: Tensor) -> None:
    there, back = perceptual(x, x.flip(-1)), perceptual(x.flip(-1), x)
    assert torch.equal(there, back)
    assert (there > 0).all()


def test_distance_is_per_image(perceptual: PerceptualDistance, x: Tensor) -> None:
    other = x.clone()
    other[1] = other[1].flip(-1)
    assert (perceptual(x, other) > 0).tolist() == [False, True, False]


def test_distance_is_the_sum_over_levels_of_unit_feature_differences(
    perceptual: PerceptualDistance, x: Tensor
) -> None:
    other, expected = x.roll(3, -1), torch.zeros(3)
    for ours, theirs in zip(
        perceptual.network.levels(x), perceptual.network.levels(other), strict=True
    ):
        units = [torch.nn.functional.normalize(maps, dim=1) for maps in (ours, theirs)]
        expected += (units[0] - units[1]).square().sum(1).mean((1, 2))
    torch.testing.assert_close(perceptual(x, other), expected, rtol=1e-3, atol=1e-5)


def test_gradient_reaches_the_images_only(perceptual: PerceptualDistance, x: Tensor) -> None:
    x.requires_grad_(True)
    perceptual(x, x.detach().flip(-1)).sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert x.grad.isfinite().all()
    assert all(p.grad is None for p in perceptual.parameters())
