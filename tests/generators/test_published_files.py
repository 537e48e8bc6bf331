"""Files in published layouts: nothing lost, invented or run."""

import json
import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from study.config import BackboneConfig, ConfigError
from study.generators.backbone import Transformer
from study.generators.published import Layout, load_published, read_weights

from .layouts import Tensors, dit, library, redraw, written


@pytest.fixture
def weights(backbone: BackboneConfig) -> Tensors:
    """Of a small DiT in the official layout."""
    return redraw(dit(backbone)).state_dict()


def refused(network: Transformer, file: Path, layout: Layout) -> str:
    with pytest.raises(ConfigError) as caught:
        load_published(network, file, layout)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{file}: ")


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (Layout.dit, "blocks.1.attn.qkv.weight"),
        (Layout.dit, "pos_embed"),
        (Layout.sit, "blocks.0.mlp.fc1.bias"),
        (Layout.repa, "y_embedder.embedding_table.weight"),
    ],
)
def test_a_missing_tensor_is_named(
    layout: Layout, name: str, weights: Tensors, backbone: BackboneConfig, tmp_path: Path
) -> None:
    del weights[name]
    network = Transformer(backbone, 4, 4 if layout is Layout.sit else 8, 8, 4)
    message = refused(network, written(tmp_path, weights), layout)
    assert message == f"missing tensors: {name}"


def test_a_tensor_that_the_conversion_needs_is_named(
    weights: Tensors, backbone: BackboneConfig, tmp_path: Path
) -> None:
    del weights["final_layer.linear.bias"]
    network = Transformer(backbone, 4, 4, 8, 4)
    message = refused(network, written(tmp_path, weights), Layout.sit)
    assert message == "missing tensors: final_layer.linear.bias"
    message = refused(dit(backbone), written(tmp_path, weights), Layout.diffusers)
    assert message == "missing tensors: pos_embed.proj.weight"


def test_outputs_that_cannot_be_halved_are_refused(
    weights: Tensors, backbone: BackboneConfig, tmp_path: Path
) -> None:
    message = refused(dit(backbone), written(tmp_path, weights), Layout.sit)
    assert message.startswith("not the layout of sit: ")


def test_tensors_that_nothing_uses_are_named(
    weights: Tensors, backbone: BackboneConfig, tmp_path: Path
) -> None:
    weights |= {f"blocks.0.attn.{name}": torch.zeros(1) for name in "abcde"}
    message = refused(dit(backbone), written(tmp_path, weights), Layout.dit)
    names = "blocks.0.attn.a, blocks.0.attn.b, blocks.0.attn.c and 2 more"
    assert message == f"tensors that nothing uses: {names}"


def test_another_size_is_named(weights: Tensors, backbone: BackboneConfig, tmp_path: Path) -> None:
    message = refused(dit(backbone, classes=7), written(tmp_path, weights), Layout.dit)
    assert message == "y_embedder.embedding_table.weight: shape = [5, 32]: must be [8, 32]"
    grid = refused(dit(backbone, side=16), written(tmp_path, weights), Layout.dit)
    assert grid == "pos_embed: shape = [1, 16, 32]: must be [1, 64, 32]"


def test_weights_that_are_not_finite_are_named(
    weights: Tensors, backbone: BackboneConfig, tmp_path: Path
) -> None:
    weights["x_embedder.proj.bias"][3] = math.nan
    message = refused(dit(backbone), written(tmp_path, weights), Layout.dit)
    assert message == "x_embedder.proj.bias: must be finite"


def test_a_refused_file_leaves_the_network_alone(
    weights: Tensors, backbone: BackboneConfig, tmp_path: Path
) -> None:
    network = dit(backbone)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    del weights["pos_embed"]
    refused(network, written(tmp_path, weights), Layout.dit)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_embedders_that_differ_between_blocks_are_named(
    backbone: BackboneConfig, tmp_path: Path
) -> None:
    theirs = library(8, 4, backbone, 1e-5)
    state = theirs.state_dict()
    name = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_2.bias"
    state[name] = state[name] + 1
    message = refused(dit(backbone), written(tmp_path, state), Layout.diffusers)
    assert message == f"not the layout of diffusers: {name}: differs from that of block 0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json: missing; must be a diffusers folder"),
        ("{", "config.json: must hold _class_name and norm_eps: JSONDecodeError"),
        ("{}", "config.json: must hold _class_name and norm_eps: KeyError('_class_name')"),
        (
            json.dumps({"_class_name": "UNet2DModel", "norm_eps": 1e-5}),
            "config.json: _class_name = 'UNet2DModel': must be 'DiTTransformer2DModel'",
        ),
    ],
)
def test_a_folder_of_another_model_is_named(
    content: str | None, message: str, backbone: BackboneConfig, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert message in refused(dit(backbone), tmp_path, Layout.diffusers)


class Touch:
    """Unpickling it would write a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


def test_files_that_hold_code_are_refused_and_never_run(tmp_path: Path) -> None:
    torch.save({"a": Touch(tmp_path / "ran")}, tmp_path / "bad.pt")
    with pytest.raises(ConfigError, match=r"bad\.pt: not readable as weights"):
        read_weights(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_broken_and_missing_files_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: no such file; put the weights there"):
        read_weights(tmp_path / name)
    (tmp_path / name).write_bytes(b"nothing of use")
    with pytest.raises(ConfigError, match=rf"{name}: not readable as weights: ") as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_training_checkpoint_with_the_runs_options_is_read(tmp_path: Path) -> None:
    # As the training scripts of DiT, SiT and REPA write it.
    network = torch.nn.Linear(2, 1)
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    ema = {"a": torch.full((2,), 3.0)}
    content = {
        "model": network.state_dict(),
        "ema": ema,
        "opt": optimiser.state_dict(),
        "args": Namespace(model="DiT-XL/2", image_size=256, vae="ema", resume=None),
        "steps": 400_000,
    }
    torch.save(content, tmp_path / "0400000.pt")
    found = read_weights(tmp_path / "0400000.pt")
    assert list(found) == ["a"]
    assert torch.equal(found["a"], ema["a"])
    # What may be read for this one file may not be afterwards.
    assert Namespace not in torch.serialization.get_safe_globals()


def test_anything_but_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}, "steps": 4}, tmp_path / "x.pt")
    with pytest.raises(ConfigError, match=r"x\.pt: must be a mapping of names to tensors"):
        read_weights(tmp_path / "x.pt")


def test_weights_are_read_in_fp32(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, dtype=torch.float16)}, tmp_path / "x.safetensors")
    assert read_weights(tmp_path / "x.safetensors")["a"].dtype == torch.float32
