import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from study.autoencoders.models import (
    Autoencoder,
    Posterior,
    create_autoencoder,
    load_autoencoder,
)
from study.config import AutoencoderConfig, ConfigError, Family
from study.data.store import to_float

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def x(images: np.ndarray) -> Tensor:
    return to_float(torch.from_numpy(images[:4]))


def test_latents_are_a_factor_smaller(autoencoder: Autoencoder, x: Tensor) -> None:
    assert (autoencoder.factor, autoencoder.channels) == (2, 4)
    latents = autoencoder.encode(x).mean
    assert latents.shape == (4, 4, 8, 8)
    assert autoencoder.decode(latents).shape == x.shape


def test_kl_adapter_equals_the_library(kl: Autoencoder, x: Tensor) -> None:
    posterior, theirs = kl.encode(x), kl.model.encode(x).latent_dist
    assert posterior.logvar is not None
    assert torch.equal(posterior.mean, theirs.mean)
    assert torch.equal(posterior.logvar, theirs.logvar)
    assert torch.equal(kl.decode(posterior.mean), kl.model.decode(theirs.mean).sample)


def test_tiny_adapter_equals_the_library(tiny: Autoencoder, x: Tensor) -> None:
    posterior = tiny.encode(x)
    assert posterior.logvar is None
    assert torch.equal(posterior.mean, tiny.model.encode(x).latents)
    assert torch.equal(tiny.decode(posterior.mean), tiny.model.decode(posterior.mean).sample)


def test_vq_adapter_equals_the_library(vq: Autoencoder, x: Tensor) -> None:
    features = vq.encode(x).mean
    assert torch.equal(features, vq.model.encode(x).latents)
    # Straight-through features + (entry - features) differ from the entry in the last bit.
    torch.testing.assert_close(vq.decode(features), vq.model.decode(features).sample)


def test_tokens_equal_the_librarys(vq: Autoencoder, x: Tensor) -> None:
    features = vq.encode(x).mean
    tokens = vq.quantise(features).tokens
    _, _, (_, _, theirs) = vq.model.quantize(features)
    assert torch.equal(tokens.flatten(), theirs.flatten())
    assert tokens.unique().numel() > 1


def test_decoding_tokens_equals_decoding_features(vq: Autoencoder, x: Tensor) -> None:
    features = vq.encode(x).mean
    tokens = vq.quantise(features).tokens
    torch.testing.assert_close(vq.decode_tokens(tokens), vq.decode(features))


def test_quantising_is_idempotent(vq: Autoencoder) -> None:
    tokens = torch.arange(16).view(1, 4, 4)
    assert torch.equal(vq.quantise(vq.entries(tokens)).tokens, tokens)


def test_quantised_embeddings_pass_the_gradient_straight_through(vq: Autoencoder) -> None:
    features = torch.randn(1, 4, 2, 2, requires_grad=True)
    upstream = torch.randn(1, 4, 2, 2)
    vq.quantise(features).embeddings.backward(upstream)
    assert features.grad is not None
    assert torch.equal(features.grad, upstream)
    assert vq.model.quantize.embedding.weight.grad is None


def test_save_and_load_round_trip_bitwise(
    autoencoder: Autoencoder, x: Tensor, tmp_path: Path
) -> None:
    autoencoder.save(tmp_path)
    loaded = load_autoencoder(tmp_path)
    latents = autoencoder.encode(x).mean
    assert loaded.family is autoencoder.family
    assert not loaded.training
    assert list(tmp_path.glob("*.bin")) == []
    assert torch.equal(loaded.encode(x).mean, latents)
    assert torch.equal(loaded.decode(latents), autoencoder.decode(latents))


def test_encoder_modules_are_what_latents_depend_on(autoencoder: Autoencoder, x: Tensor) -> None:
    autoencoder.encode(x).mean.sum().backward()
    reached = {name for name, p in autoencoder.named_parameters() if p.grad is not None}
    parts = {id(p) for module in autoencoder.encoder_modules() for p in module.parameters()}
    encoder = {name for name, p in autoencoder.named_parameters() if id(p) in parts}
    assert encoder - reached == (
        {"model.quantize.embedding.weight"} if autoencoder.discrete else set()
    )
    assert reached <= encoder


def test_last_layer_makes_the_image_channels(autoencoder: Autoencoder) -> None:
    assert autoencoder.last_layer().shape[0] == 3
    assert any(p is autoencoder.last_layer() for p in autoencoder.model.decoder.parameters())


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/config\.json"):
        load_autoencoder(tmp_path / "nowhere")


def test_another_class_is_refused(kl: Autoencoder, tmp_path: Path) -> None:
    kl.save(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"_class_name": "UNet2DModel"}))
    with pytest.raises(ConfigError, match="'UNet2DModel': must be one of AutoencoderKL"):
        load_autoencoder(tmp_path)


def test_a_missing_weight_is_refused(kl: Autoencoder, tmp_path: Path) -> None:
    kl.save(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    del weights["decoder.conv_out.bias"]
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(ConfigError, match=r"no weight 'decoder\.conv_out\.bias'"):
        load_autoencoder(tmp_path)


def test_weights_of_another_size_are_refused(kl: Autoencoder, tmp_path: Path) -> None:
    kl.save(tmp_path)
    weights = load_file(tmp_path / WEIGHTS) | {"decoder.conv_out.bias": torch.zeros(5)}
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(ConfigError, match=r"cannot load AutoencoderKL: .*decoder\.conv_out\.bias"):
        load_autoencoder(tmp_path)


def test_a_folder_without_weights_is_refused(kl: Autoencoder, tmp_path: Path) -> None:
    kl.save(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(ConfigError, match=WEIGHTS):
        load_autoencoder(tmp_path)


def test_a_hub_id_needs_a_family() -> None:
    with pytest.raises(ConfigError, match="family must be given"):
        load_autoencoder("someone/something")


def test_an_unknown_constructor_argument_is_refused() -> None:
    config = AutoencoderConfig(
        family=Family.kl, weights=None, architecture={"depth": 3}, published_scale=1.0
    )
    with pytest.raises(ConfigError, match=r"architecture = .*depth"):
        create_autoencoder(config)


@pytest.fixture
def posterior() -> Posterior:
    torch.manual_seed(0)
    return Posterior(torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2))


def test_kl_of_a_standard_normal_is_zero() -> None:
    zeros = torch.zeros(2, 4, 3, 3)
    assert torch.equal(Posterior(zeros, zeros).kl(), torch.zeros(2))


def test_kl_equals_torch_distributions(posterior: Posterior) -> None:
    assert posterior.logvar is not None
    ours = torch.distributions.Normal(posterior.mean, (0.5 * posterior.logvar).exp())
    standard = torch.distributions.Normal(torch.tensor(0.0), torch.tensor(1.0))
    expected = torch.distributions.kl_divergence(ours, standard).flatten(1).sum(1)
    torch.testing.assert_close(posterior.kl(), expected)


def test_samples_have_the_posteriors_moments(posterior: Posterior) -> None:
    draws = torch.stack([posterior.sample(torch.randn(3, 4, 2, 2)) for _ in range(4000)])
    assert posterior.logvar is not None
    torch.testing.assert_close(draws.mean(0), posterior.mean, atol=0.25, rtol=0)
    torch.testing.assert_close(draws.var(0).log(), posterior.logvar, atol=0.15, rtol=0)


def test_without_noise_the_sample_is_the_mean(posterior: Posterior) -> None:
    assert posterior.sample(None) is posterior.mean


def test_a_deterministic_posterior_ignores_noise_and_has_no_kl() -> None:
    posterior = Posterior(torch.randn(2, 4, 2, 2), None)
    assert posterior.sample(torch.randn(2, 4, 2, 2)) is posterior.mean
    assert torch.equal(posterior.kl(), torch.zeros(2))


def test_what_is_saved_does_not_tell_where_the_weights_came_from(
    autoencoder: Autoencoder, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        autoencoder.save(tmp_path / name)
        load_autoencoder(tmp_path / name).save(tmp_path / f"{name}-again")
    saved = [
        {file.name: file.read_bytes() for file in (tmp_path / f"{name}-again").iterdir()}
        for name in ("a", "b")
    ]
    assert saved[0] == saved[1]


def test_a_saved_autoencoder_loads_without_a_warning(
    autoencoder: Autoencoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    autoencoder.save(tmp_path)
    logging.getLogger("diffusers").addHandler(caplog.handler)
    load_autoencoder(tmp_path)
    logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert caplog.records == []


def test_latents_have_the_side_over_the_factor(autoencoder: Autoencoder, x: Tensor) -> None:
    assert autoencoder.latent_side(x) == 8


@pytest.mark.parametrize(("height", "width"), [(15, 15), (16, 18)])
def test_images_that_the_factor_does_not_divide_are_refused(
    kl: Autoencoder, height: int, width: int
) -> None:
    rule = f"images of {height} x {width} pixels: must be square, .* multiple .* factor 2$"
    with pytest.raises(ConfigError, match=rule):
        kl.latent_side(torch.zeros(2, 3, height, width))


def test_a_weight_without_a_place_is_refused(kl: Autoencoder, tmp_path: Path) -> None:
    kl.save(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(file), "encoder.extra.weight": torch.zeros(2)}, file)
    with pytest.raises(ConfigError, match=r"weight 'encoder\.extra\.weight': must have a place"):
        load_autoencoder(tmp_path)
