from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from study.config import BackboneConfig, load_group
from study.generators.token_backbone import (
    GatedMlp,
    TokenAttention,
    TokenTransformer,
    drop,
    random_bits,
)

Awaken = Callable[[nn.Module], nn.Module]


def numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def transformer(token_backbone: BackboneConfig) -> TokenTransformer:
    """16 codes on 4 x 4, 4 classes."""
    torch.manual_seed(0)
    return TokenTransformer(token_backbone, 16, 4, 4, dropout=0.5)


# Millions of parameters at 16 x 16 tokens of 16,384 codes and 1000 classes [Halton-MaskGIT].
@pytest.mark.parametrize(("size", "millions"), [("B_1", 142), ("L_1", 480)])
def test_parameter_counts_are_the_published_ones(size: str, millions: int) -> None:
    config = load_group(BackboneConfig, "backbone", size)
    with torch.device("meta"):
        network = TokenTransformer(config, 16384, 16, 1000, dropout=0.1)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


def test_large_is_24_blocks_of_width_1024_with_16_heads() -> None:
    config = load_group(BackboneConfig, "backbone", "L_1")
    assert (config.width, config.depth, config.heads) == (1024, 24, 16)


def test_there_is_one_token_more_than_positions(transformer: TokenTransformer) -> None:
    seen: list[torch.Size] = []
    for block in transformer.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    logits = transformer(torch.zeros(3, 16).long(), torch.zeros(3).long())
    assert logits.shape == (3, 16, 16)
    assert seen == [(3, 17, 32)] * 2


def test_a_fresh_network_gives_the_logits_of_its_embeddings(transformer: TokenTransformer) -> None:
    # Gates are zero: what reaches the tied head is the normalised sum of token and position.
    tokens, labels = torch.arange(16).view(1, 16), torch.tensor([2])
    x = transformer.token_embedder(tokens) + transformer.position_embedder.weight
    x = functional.rms_norm(x, (32,), eps=1e-5)
    shift, scale = transformer.adaLN_modulation(transformer.y_embedder(labels)).chunk(2, dim=1)
    expected = (x * (1 + scale) + shift) @ transformer.token_embedder.weight[:16].T
    torch.testing.assert_close(transformer(tokens, labels), expected)


def test_every_parameter_is_reached(transformer: TokenTransformer, awaken: Awaken) -> None:
    awaken(transformer)
    tokens = torch.arange(32).view(2, 16) % 17
    transformer(tokens, torch.tensor([0, 4]), numbers(0)).square().sum().backward()
    found = transformer.named_parameters()
    assert [name for name, p in found if p.grad is None or not p.grad.any()] == []


def test_logits_depend_on_class_position_and_every_token(
    transformer: TokenTransformer, awaken: Awaken
) -> None:
    awaken(transformer)
    tokens = torch.full((1, 16), 3)
    plain = transformer(tokens, torch.tensor([0]))
    assert not torch.allclose(plain, transformer(tokens, torch.tensor([1])))
    assert not torch.allclose(plain[0, 0], plain[0, 1])
    other = tokens.clone()
    other[0, 15] = 4
    assert not torch.allclose(plain[0, 0], transformer(other, torch.tensor([0]))[0, 0])


def test_attention_equals_the_librarys_with_normalised_queries_and_keys() -> None:
    ours = TokenAttention(16, 4)
    x = torch.randn(2, 5, 16)
    q, k, v = ours.qkv(x).chunk(3, dim=2)
    q, k = (part / part.square().mean(2, keepdim=True).add(1e-5).sqrt() for part in (q, k))
    theirs = nn.MultiheadAttention(16, 4, batch_first=True, bias=False)
    theirs.in_proj_weight.data = torch.eye(16).repeat(3, 1)
    theirs.out_proj.weight.data = ours.proj.weight.data
    torch.testing.assert_close(ours(x), theirs(q, k, v, need_weights=False)[0])


@pytest.mark.parametrize(("width", "hidden"), [(96, 256), (768, 2048), (1024, 2816)])
def test_hidden_width_is_two_thirds_rounded_up_to_256(width: int, hidden: int) -> None:
    assert GatedMlp(width, 4.0).fc2.in_features == hidden


def test_dropout_follows_its_own_random_numbers(
    transformer: TokenTransformer, awaken: Awaken
) -> None:
    awaken(transformer)
    arguments = torch.zeros(2, 16).long(), torch.zeros(2).long()
    state = torch.get_rng_state()
    first = transformer(*arguments, numbers(0))
    assert torch.equal(first, transformer(*arguments, numbers(0)))
    assert not torch.equal(first, transformer(*arguments, numbers(1)))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(transformer(*arguments), transformer(*arguments))


def test_dropout_keeps_its_share_and_the_mean() -> None:
    dropped = drop(torch.ones(100_000), 0.25, random_bits(100_000, numbers(0)))
    # Four standard deviations of a binomial share of 100,000.
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.0055)
    assert float(dropped.max()) == pytest.approx(4 / 3)


def test_tokens_need_patches_of_one(backbone: BackboneConfig) -> None:
    with pytest.raises(ValueError, match="patch_size = 2: must be 1"):
        TokenTransformer(replace(backbone, patch_size=2), 16, 4, 4, 0.0)
