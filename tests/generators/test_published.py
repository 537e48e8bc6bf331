"""Published layouts: equal outputs after conversion."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from study.config import BackboneConfig, LatentSpec, load_group
from study.generators.backbone import Transformer
from study.generators.published import Layout, load_published
from study.generators.repa import AlignedTransformer

from .layouts import Tensors, dit, library, redraw, written


@pytest.fixture
def weights(backbone: BackboneConfig) -> Tensors:
    """Of a small DiT in the official layout."""
    return redraw(dit(backbone)).state_dict()


@pytest.mark.parametrize("norm_eps", [1e-5, 1e-2])
@pytest.mark.parametrize("size", [(8, 2, 1, 4), (8, 2, 2, 4), (16, 4, 2, 1), (16, 4, 4, 3)])
def test_small_sizes_equal_the_librarys(
    size: tuple[int, int, int, int], norm_eps: float, tmp_path: Path
) -> None:
    side, heads, patch, depth = size
    config = BackboneConfig(
        width=32 * heads,
        depth=depth,
        heads=heads,
        patch_size=patch,
        mlp_ratio=4.0,
        projection_depth=1,
        projection_width=16,
    )
    theirs = library(side, 5, config, norm_eps)
    theirs.save_pretrained(tmp_path)
    ours = dit(config, side, 5)
    load_published(ours, tmp_path, Layout.diffusers)
    equal(ours, theirs, side, 5)


def test_dit_s_2_equals_the_librarys(tmp_path: Path) -> None:
    config = load_group(BackboneConfig, "backbone", "S_2")
    theirs = library(32, 1000, config, norm_eps=1e-5)
    theirs.save_pretrained(tmp_path)
    ours = dit(config, 32, 1000)
    load_published(ours, tmp_path, Layout.diffusers)
    equal(ours, theirs, 32, 1000)


@torch.no_grad()
def equal(ours: nn.Module, theirs: nn.Module, side: int, classes: int) -> None:
    """Same outputs, of a size that could differ, for several inputs, times and classes."""
    for seed in range(2):
        x = torch.randn(4, 4, side, side, generator=torch.Generator().manual_seed(seed))
        t = torch.tensor([0, 1, 500 + seed, 999])
        labels = torch.tensor([0, classes, classes - 1, seed])
        expected = theirs(x, timestep=t, class_labels=labels).sample
        assert expected.abs().amax((1, 2, 3)).min() > 0.1
        torch.testing.assert_close(ours(x, t, labels), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_official_layout_round_trips(
    suffix: str, weights: Tensors, backbone: BackboneConfig, tmp_path: Path
) -> None:
    file = tmp_path / f"DiT{suffix}"
    save_file(weights, file) if suffix == ".safetensors" else torch.save(weights, file)
    network = dit(backbone)
    load_published(network, file, Layout.dit)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_sit_runs_backwards_and_has_outputs_that_are_not_used(
    weights: Tensors, backbone: BackboneConfig, spec: LatentSpec, tmp_path: Path
) -> None:
    # The official SiT: DiT's network, of whose eight outputs four are the velocity.
    theirs = dit(backbone)
    theirs.load_state_dict(weights)
    ours = Transformer(backbone, 4, 4, spec.side, spec.num_classes)
    load_published(ours, written(tmp_path, weights), Layout.sit)
    x, labels = torch.randn(5, 4, 8, 8), torch.arange(5)
    t = torch.tensor([0.0, 0.01, 0.3, 0.99, 1.0])
    with torch.no_grad():
        expected = -theirs(x, 1 - t, labels)[:, :4]
        assert expected.abs().amax((1, 2, 3)).min() > 0.1
        torch.testing.assert_close(ours(x, t, labels), expected, atol=1e-5, rtol=0)


def test_sit_and_time_are_told_apart(
    weights: Tensors, backbone: BackboneConfig, tmp_path: Path
) -> None:
    # The test above would not see a time that is ignored.
    ours = Transformer(backbone, 4, 4, 8, 4)
    weights["t_embedder.mlp.0.weight"] *= 50
    load_published(ours, written(tmp_path, weights), Layout.sit)
    x, labels = torch.randn(1, 4, 8, 8), torch.tensor([0])
    with torch.no_grad():
        ends = [ours(x, torch.tensor([t]), labels) for t in (0.2, 0.8)]
    assert (ends[0] - ends[1]).abs().max() > 1e-3


def test_repa_has_a_projector_and_our_time(
    backbone: BackboneConfig, spec: LatentSpec, tmp_path: Path
) -> None:
    theirs = AlignedTransformer(backbone, spec, 6)
    redraw(theirs)
    renamed = {
        name.replace("projector.", "projectors.0."): value
        for name, value in theirs.state_dict().items()
    }
    file = tmp_path / "last.pt"
    torch.save({"model": {}, "ema": renamed, "steps": 3}, file)
    ours = AlignedTransformer(backbone, spec, 6)
    load_published(ours, file, Layout.repa)
    x, t, labels = torch.randn(2, 4, 8, 8), torch.tensor([0.1, 0.9]), torch.tensor([1, 4])
    with torch.no_grad():
        for one, other in zip(
            ours.with_projections(x, t, labels), theirs.with_projections(x, t, labels), strict=True
        ):
            assert torch.equal(one, other)
