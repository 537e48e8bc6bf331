"""Rewritten layers compute what diffusers' do, forwards and backwards."""

import copy

import pytest
import torch
from torch import nn

from study.autoencoders.models import Autoencoder, create_autoencoder
from study.compiled import ChannelsLastGroupNorm, Repeated, rewrite
from study.config import AutoencoderConfig, Family

SMALL = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 2}


def make(family: Family) -> Autoencoder:
    torch.manual_seed(0)
    more = {"num_vq_embeddings": 8} if family is Family.vq else {}
    config = AutoencoderConfig(
        family=family,
        weights=None,
        architecture=SMALL | {"latent_channels": 4} | more,
        published_scale=1.0,
    )
    return create_autoencoder(config)


@pytest.mark.parametrize("family", [Family.kl, Family.vq])
def test_values_and_gradients_stay(family: Family) -> None:
    plain = make(family)
    written = copy.deepcopy(plain)
    rewrite(written.model)
    kinds = {type(module) for module in written.modules()}
    assert {Repeated, ChannelsLastGroupNorm} <= kinds
    assert nn.GroupNorm not in kinds
    assert plain.state_dict().keys() == written.state_dict().keys()
    images = torch.randn(2, 3, 16, 16)
    results, gradients = [], []
    for autoencoder in (plain, written):
        latents = autoencoder.encode(images).mean
        embeddings = autoencoder.quantise(latents).embeddings if autoencoder.discrete else latents
        decode = autoencoder.decode_embeddings if autoencoder.discrete else autoencoder.decode
        results.append(decode(embeddings))
        results[-1].square().sum().backward()
        gradients.append([p.grad for p in autoencoder.parameters() if p.grad is not None])
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    assert len(gradients[0]) == len(gradients[1]) > 0
    # The gradient of a bias of the keys is zero but for rounding.
    largest = max(float(one.abs().max()) for one in gradients[0])
    for one, other in zip(*gradients, strict=True):
        scale = max(float(one.abs().max()), 1e-3 * largest)
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=1e-4)


def test_tiny_autoencoders_have_none_of_these_layers() -> None:
    torch.manual_seed(0)
    architecture = {"encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8]}
    blocks = {"num_encoder_blocks": [1, 1], "num_decoder_blocks": [1, 1], "latent_channels": 4}
    config = AutoencoderConfig(
        family=Family.tiny, weights=None, architecture=architecture | blocks, published_scale=1.0
    )
    autoencoder = create_autoencoder(config)
    before = [type(module) for module in autoencoder.modules()]
    rewrite(autoencoder.model)
    assert before == [type(module) for module in autoencoder.modules()]


def test_what_stands_between_convolutions_keeps_channels_last() -> None:
    model = make(Family.kl).model
    rewrite(model)
    norm = next(m for m in model.modules() if isinstance(m, ChannelsLastGroupNorm))
    up = next(m for m in model.modules() if isinstance(m, Repeated))
    up.conv = nn.Identity()  # pyright: ignore
    for layer, channels in ((norm, norm.num_channels), (up, up.channels)):
        images = torch.randn(2, channels, 8, 8).to(memory_format=torch.channels_last)
        images.requires_grad_()
        seen: list[torch.Tensor] = []
        result = layer(images * 1)
        assert result.is_contiguous(memory_format=torch.channels_last)
        images.register_hook(seen.append)
        # From a layer that does not care.
        result.backward(torch.randn(result.shape))
        assert seen[0].is_contiguous(memory_format=torch.channels_last)
