import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from study import paths
from study.config import AlignmentTarget, ConfigError, GeneratorConfig, NetworkConfig, REPAConfig
from study.data.store import to_float
from study.evaluation.networks.in_domain import load_network, save_network
from study.generators.targets import DINOv2Target, InDomainTarget, load_target

CPU = torch.device("cpu")


@pytest.fixture
def config(generators: dict[str, GeneratorConfig]) -> REPAConfig:
    config = generators["repa"]
    assert isinstance(config, REPAConfig)
    return config


@pytest.fixture
def dinov2(config: REPAConfig) -> REPAConfig:
    return replace(
        config, target=AlignmentTarget.dinov2_small, target_weights="weights/dinov2.safetensors"
    )


@pytest.fixture
def pixels(images: np.ndarray) -> Tensor:
    return to_float(torch.from_numpy(images[:2]))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "weights").mkdir()
    return tmp_path


@pytest.fixture
def small_vit(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """timm's ViT-S/14 of DINOv2, cut to two blocks of width 24; weights random."""
    timm = pytest.importorskip("timm")
    create = timm.create_model
    size = {"embed_dim": 24, "depth": 2, "num_heads": 2}
    monkeypatch.setattr(timm, "create_model", lambda name, **k: create(name, **(size | k)))

    def make() -> Any:
        torch.manual_seed(0)
        return timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=518)

    return make


def test_tokens_are_the_grid_row_by_row(target: InDomainTarget, pixels: Tensor) -> None:
    maps = target.network.grid(pixels)
    tokens = target.tokens(pixels, 4)
    assert tokens.shape == (2, 16, 4)
    assert torch.equal(tokens[:, 1 * 4 + 2], maps[:, :, 1, 2])


@pytest.mark.parametrize("grid", [2, 8])
def test_another_grid_than_that_of_the_tokens_is_refused(
    grid: int, target: InDomainTarget, pixels: Tensor
) -> None:
    with pytest.raises(ConfigError, match=rf"grid side = 4: must be that of the tokens, {grid};"):
        target.tokens(pixels, grid)


def test_the_in_domain_network_is_read_from_its_folder(
    target: InDomainTarget, config: REPAConfig, pixels: Tensor, tmp_path: Path
) -> None:
    from study.config import Role

    description = NetworkConfig(
        role=Role.target, architecture="patch", widths=[4, 8], features=8, seed=0
    )
    save_network(target.network, description, 4, tmp_path)
    loaded = load_target(config, tmp_path, CPU)
    assert (loaded.name, loaded.channels) == ("in_domain", 4)
    expected = load_network(tmp_path).grid(pixels).flatten(2).transpose(1, 2)
    assert torch.equal(loaded.tokens(pixels, 4), expected)


def test_dinov2_gives_normalised_patch_tokens_of_the_resized_image(
    dinov2: REPAConfig, small_vit: Callable[[], Any], root: Path, pixels: Tensor
) -> None:
    model = small_vit().eval()
    save_file(model.state_dict(), root / "weights" / "dinov2.safetensors")
    target = load_target(dinov2, root, CPU)
    assert isinstance(target, DINOv2Target)
    assert (target.name, target.channels) == ("dinov2_small", 24)
    assert not any(parameter.requires_grad for parameter in target.model.parameters())
    seen: list[Tensor] = []
    target.model.patch_embed.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    tokens = target.tokens(pixels, 4)
    assert tokens.shape == (2, 16, 24)
    assert seen[0].shape == (2, 3, 4 * 14, 4 * 14)
    # The first token is the image's, not a patch's.
    assert torch.equal(tokens, target.model.forward_features(seen[0])[:, 1:])
    # The last layer's norm: every token has mean 0 and variance 1 for fresh weights.
    torch.testing.assert_close(tokens.mean(2), torch.zeros(2, 16), atol=1e-4, rtol=0)
    torch.testing.assert_close(tokens.var(2, correction=0), torch.ones(2, 16), atol=1e-2, rtol=0)


def test_dinov2_sees_pixels_normalised_as_imagenets(
    dinov2: REPAConfig, small_vit: Callable[[], Any], root: Path
) -> None:
    save_file(small_vit().state_dict(), root / "weights" / "dinov2.safetensors")
    target = load_target(dinov2, root, CPU)
    assert isinstance(target, DINOv2Target)
    seen: list[Tensor] = []
    target.model.patch_embed.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    target.tokens(torch.ones(1, 3, 28, 28), 2)
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert seen[0][0, :, 3, 3].tolist() == pytest.approx(expected, rel=1e-5)


def test_weights_of_another_model_are_refused_in_one_line(
    dinov2: REPAConfig, small_vit: Callable[[], Any], root: Path
) -> None:
    weights = small_vit().state_dict()
    del weights["norm.weight"]
    save_file(weights, root / "weights" / "dinov2.safetensors")
    with pytest.raises(ConfigError, match=r"target_weights = 'weights/dinov2.safetensors': not"):
        load_target(dinov2, root, CPU)


class Evil:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


def test_weights_with_code_in_them_are_refused_before_timm_reads_them(
    dinov2: REPAConfig, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpickles(name: str, pretrained_cfg_overlay: dict[str, str], **others: object) -> None:
        torch.load(pretrained_cfg_overlay["file"], weights_only=False)

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=unpickles))
    torch.save({"norm.weight": Evil(root / "ran")}, root / "weights" / "dinov2.pth")
    with pytest.raises(ConfigError, match=r"target_weights = 'weights/dinov2.pth': not"):
        load_target(replace(dinov2, target_weights="weights/dinov2.pth"), root, CPU)
    assert not (root / "ran").exists()


@pytest.mark.usefixtures("root")
def test_missing_weights_are_refused_in_one_line(dinov2: REPAConfig, root: Path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="not readable as weights") as caught:
        load_target(dinov2, root, CPU)
    assert "\n" not in str(caught.value)
