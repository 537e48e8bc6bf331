import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from study.config import BackboneConfig, load_group
from study.generators.backbone import (
    Attention,
    TimeEmbedder,
    Transformer,
    position_embedding,
)

Awaken = Callable[[nn.Module], nn.Module]


@pytest.fixture
def transformer(backbone: BackboneConfig) -> Transformer:
    return Transformer(backbone, channels=4, out_channels=8, side=8, num_classes=4)


def parameters(network: nn.Module) -> int:
    """As the official models count: the fixed positions are a parameter there."""
    return sum(tensor.numel() for tensor in network.state_dict().values())


# Millions of parameters of DiT with learned variance at 32 x 32 x 4 and 1000 classes: counted on
# the official models [2212.09748, Table 1, gives 33, 130, 458 and 675].
@pytest.mark.parametrize(
    ("size", "millions"), [("S_2", 32.96), ("B_2", 130.51), ("L_2", 458.10), ("XL_2", 675.13)]
)
def test_parameter_counts_are_the_published_ones(size: str, millions: float) -> None:
    config = load_group(BackboneConfig, "backbone", size)
    with torch.device("meta"):
        network = Transformer(config, 4, 8, 32, 1000)
    assert round(parameters(network) / 1e6, 2) == millions


@pytest.mark.parametrize("size", ["S", "B", "L", "XL"])
def test_patches_change_embedder_head_and_positions_only(size: str) -> None:
    configs = [load_group(BackboneConfig, "backbone", f"{size}_{patch}") for patch in (1, 2, 4)]
    with torch.device("meta"):
        counts = [parameters(Transformer(config, 4, 8, 32, 1000)) for config in configs]
    width = configs[0].width
    per_pixel = 4 * width + 8 * (width + 1)
    expected = [(p**2 - 1) * per_pixel + ((32 // p) ** 2 - 32**2) * width for p in (1, 2, 4)]
    assert [count - counts[0] for count in counts] == expected


@pytest.mark.parametrize("size", ["S", "B", "L", "XL"])
def test_sizes_align_at_their_depth_and_width(size: str) -> None:
    config = load_group(BackboneConfig, "backbone", f"{size}_2")
    assert config.projection_depth == (8 if size in ("L", "XL") else 4)
    assert config.projection_width == 2048


def test_parameters_carry_the_published_names(backbone: BackboneConfig) -> None:
    names = set(Transformer(replace(backbone, depth=1), 4, 8, 8, 4).state_dict())
    modules = [
        "x_embedder.proj",
        "t_embedder.mlp.0",
        "t_embedder.mlp.2",
        "blocks.0.attn.qkv",
        "blocks.0.attn.proj",
        "blocks.0.mlp.fc1",
        "blocks.0.mlp.fc2",
        "blocks.0.adaLN_modulation.1",
        "final_layer.linear",
        "final_layer.adaLN_modulation.1",
    ]
    affine = {f"{name}.{kind}" for name in modules for kind in ("weight", "bias")}
    assert names == affine | {"pos_embed", "y_embedder.embedding_table.weight"}


def test_a_fresh_transformer_gives_zero(transformer: Transformer) -> None:
    output = transformer(torch.randn(2, 4, 8, 8), torch.tensor([0.1, 0.9]), torch.tensor([0, 4]))
    assert torch.equal(output, torch.zeros(2, 8, 8, 8))


def test_every_parameter_is_reached(transformer: Transformer, awaken: Awaken) -> None:
    network = awaken(transformer)
    network(torch.randn(2, 4, 8, 8), torch.rand(2), torch.tensor([0, 4])).square().sum().backward()
    unreached = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


def test_position_embedding_is_columns_then_rows() -> None:
    width, side = 16, 3
    table = position_embedding(width, side).view(side, side, width)
    rates = [1 / 10000 ** (i / 4) for i in range(4)]
    for row in range(side):
        for column in range(side):
            expected = [
                f(p * r) for p in (column, row) for f in (math.sin, math.cos) for r in rates
            ]
            assert table[row, column].tolist() == pytest.approx(expected, abs=1e-6)


def test_time_embedding_is_cosines_then_sines() -> None:
    embedder = TimeEmbedder(8)
    embedder.mlp = nn.Sequential()
    angles = [3.0 * 10000 ** (-i / 128) for i in range(128)]
    expected = [*map(math.cos, angles), *map(math.sin, angles)]
    assert embedder(torch.tensor([3.0]))[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_attention_equals_the_librarys() -> None:
    ours = Attention(16, 4)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_patches_return_to_their_place(transformer: Transformer) -> None:
    image = torch.randn(2, 8, 8, 8)
    tokens = functional.unfold(image, 2, stride=2).view(2, 8, 4, 16)  # B C (p q) N
    tokens = tokens.permute(0, 3, 2, 1).flatten(2)  # B N (p q C)
    assert torch.equal(transformer._unpatchify(tokens), image)


def test_hidden_tokens_are_those_of_the_asked_block(
    transformer: Transformer, awaken: Awaken
) -> None:
    awaken(transformer)
    arguments = (torch.randn(1, 4, 8, 8), torch.rand(1), torch.tensor([2]))
    found: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        found.append(output)

    for block in transformer.blocks:
        block.register_forward_hook(keep)
    for depth in (1, 2):
        found.clear()
        output, hidden = transformer.with_hidden(*arguments, depth)
        assert torch.equal(hidden, found[depth - 1])
        assert torch.equal(output, transformer(*arguments))


def test_output_depends_on_time_and_class(transformer: Transformer, awaken: Awaken) -> None:
    awaken(transformer)
    x = torch.randn(1, 4, 8, 8).expand(3, -1, -1, -1)
    out = transformer(x, torch.tensor([0.1, 0.1, 0.9]), torch.tensor([1, 4, 1]))
    assert not torch.allclose(out[0], out[1])
    assert not torch.allclose(out[0], out[2])


def test_patches_must_divide_the_side(backbone: BackboneConfig) -> None:
    with pytest.raises(ValueError, match="patch_size = 2: must divide latent side 7"):
        Transformer(backbone, 4, 8, 7, 4)
