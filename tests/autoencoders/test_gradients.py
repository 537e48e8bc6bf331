"""Which parameters each loss term trains."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.autoencoders import train
from study.autoencoders.critic import Critic
from study.autoencoders.models import Autoencoder
from study.autoencoders.monitor import Views
from study.autoencoders.objective import Draw, Forward, Recipe, forward, loss
from study.autoencoders.train import _trainable, train_autoencoder
from study.config import ArmConfig, AutoencoderTrainingConfig, Interpolation, Trainable
from study.data.store import to_float
from study.equivariance import Transform
from study.evaluation.networks.perceptual import PerceptualDistance

TURN = Transform(4, 4, 1, Interpolation.bilinear, antialias=False)
SMALL = Transform(4, 4, 0, Interpolation.bilinear, antialias=False)


@pytest.fixture
def x(images: np.ndarray) -> Tensor:
    return to_float(torch.from_numpy(images[:4]))


def step(autoencoder: Autoencoder, x: Tensor) -> Forward:
    return forward(autoencoder, x, Draw(equivariant=TURN), torch.randn(4, 4, 8, 8), Recipe(None))


def reached(network: nn.Module) -> set[str]:
    """First two parts of the names of parameters with a non-zero gradient."""
    return {
        ".".join(name.split(".")[:2])
        for name, p in network.named_parameters()
        if p.grad is not None and p.grad.any()
    }


def silent(step: int, values: dict[str, float]) -> None:
    pass


def test_the_pixel_term_reaches_encoder_and_decoder(autoencoder: Autoencoder, x: Tensor) -> None:
    result = step(autoencoder, x)
    (result.target - result.reconstruction).abs().mean().backward()
    convolutions = (
        set() if autoencoder.family.value == "tiny" else {"quant_conv", "post_quant_conv"}
    )
    expected = {"encoder", "decoder", *convolutions}
    assert reached(autoencoder) == {f"model.{name}" for name in expected}


def test_the_perceptual_term_reaches_the_autoencoder_and_not_its_network(
    kl: Autoencoder, perceptual: PerceptualDistance, x: Tensor
) -> None:
    result = step(kl, x)
    perceptual(result.target, result.reconstruction).mean().backward()
    assert {"model.encoder", "model.decoder"} <= reached(kl)
    assert all(p.grad is None for p in perceptual.parameters())


def test_the_kl_term_reaches_the_encoder_only(kl: Autoencoder, x: Tensor) -> None:
    step(kl, x).kl.backward()
    assert reached(kl) == {"model.encoder", "model.quant_conv"}


def test_the_codebook_term_reaches_the_codebook_only(vq: Autoencoder, x: Tensor) -> None:
    step(vq, x).codebook.backward()
    assert reached(vq) == {"model.quantize"}


def test_the_commitment_term_reaches_the_encoder_only(vq: Autoencoder, x: Tensor) -> None:
    step(vq, x).commitment.backward()
    assert reached(vq) == {"model.encoder", "model.quant_conv"}


def test_the_adversarial_term_reaches_the_image_and_not_the_critic(
    kl: Autoencoder, x: Tensor, make_training: Callable[..., AutoencoderTrainingConfig]
) -> None:
    critic = Critic(make_training(), 16, 2, 0, torch.device("cpu"))
    cut = step(kl, x).cut()
    critic.term(cut.reconstruction).backward()
    assert cut.reconstruction.grad is not None
    assert cut.reconstruction.grad.any()
    assert not reached(kl)
    assert all(p.grad is None for p in critic.network.parameters())


def test_the_critics_update_reaches_the_critic_only(
    kl: Autoencoder, x: Tensor, make_training: Callable[..., AutoencoderTrainingConfig]
) -> None:
    critic = Critic(make_training(), 16, 2, 0, torch.device("cpu"))
    before = {name: p.clone() for name, p in critic.network.named_parameters()}
    critic.update(step(kl, x))
    assert not reached(kl)
    after = dict(critic.network.named_parameters())
    # The last bias: real and fake pull it equally until a margin is reached.
    last = list(before)[-1]
    assert [name for name in before if torch.equal(before[name], after[name])] == [last]


@pytest.mark.parametrize("draw", [Draw(), Draw(equivariant=TURN), Draw(downscaled=SMALL)])
def test_a_step_takes_the_gradient_of_the_whole_loss(
    autoencoder: Autoencoder,
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_arm: Callable[..., ArmConfig],
    make_training: Callable[..., AutoencoderTrainingConfig],
    monkeypatch: pytest.MonkeyPatch,
    draw: Draw,
) -> None:
    """Against the loss written out in one expression, with the adaptive weight by the book."""
    monkeypatch.setattr(train, "draw_branch", lambda *_: draw)
    config = make_training(steps=1, learning_rate=1e-12, adversarial_weight=0.25)
    arm = make_arm(downscaled_weight=0.25 if draw.downscaled else 0.0)
    noise = torch.randn(4, 4, 8, 8, generator=train._generator(0, "noise", 0))
    batch = to_float(train._batch(images, 4, 0, 0))

    recipe = Recipe(arm)
    result = forward(autoencoder, batch, draw, noise, recipe)
    losses = loss(result, batch, perceptual, config, recipe)
    critic = Critic(config, 16, 2, 0, torch.device("cpu"))
    term = critic.term(result.reconstruction)
    norms = [
        torch.autograd.grad(t, autoencoder.last_layer(), retain_graph=True)[0].norm()
        for t in (losses.reconstruction, term)
    ]
    ratio = (norms[0] / (norms[1] + 1e-4)).detach()
    (losses.reconstruction + losses.latent + 0.25 * ratio * term).backward()
    expected = {name: p.grad for name, p in autoencoder.named_parameters()}
    expected = {name: grad.clone() for name, grad in expected.items() if grad is not None}

    autoencoder.zero_grad(set_to_none=True)
    train_autoencoder(autoencoder, images, config, arm, Views(perceptual), 0, silent)
    for name, parameter in autoencoder.named_parameters():
        assert (parameter.grad is None) == (name not in expected), name
        if parameter.grad is not None:
            scale = expected[name].abs().max() + 1e-8
            assert float((parameter.grad - expected[name]).abs().max() / scale) < 1e-3, name


def test_decoder_training_leaves_the_latents_alone(
    autoencoder: Autoencoder,
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_arm: Callable[..., ArmConfig],
    make_training: Callable[..., AutoencoderTrainingConfig],
    x: Tensor,
) -> None:
    latents = autoencoder.encode(x).mean
    decoded = autoencoder.decode(latents)
    frozen = [p for module in autoencoder.encoder_modules() for p in module.parameters()]
    before = [p.clone() for p in frozen]
    arm = make_arm(trainable=Trainable.decoder)
    train_autoencoder(autoencoder, images, make_training(), arm, Views(perceptual), 0, silent)
    assert all(torch.equal(p, q) for p, q in zip(before, frozen, strict=True))
    assert torch.equal(autoencoder.encode(x).mean, latents)
    assert not torch.equal(autoencoder.decode(latents), decoded)


@pytest.mark.parametrize("trainable", [Trainable.all, None])
def test_every_parameter_is_trained(
    autoencoder: Autoencoder,
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_arm: Callable[..., ArmConfig],
    make_training: Callable[..., AutoencoderTrainingConfig],
    trainable: Trainable | None,
) -> None:
    before = {name: p.clone() for name, p in autoencoder.named_parameters()}
    arm = make_arm(trainable=trainable) if trainable else None
    train_autoencoder(
        autoencoder, images, make_training(steps=5), arm, Views(perceptual), 0, silent
    )
    after = dict(autoencoder.named_parameters())
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_the_perceptual_network_does_not_change(
    kl: Autoencoder,
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_training: Callable[..., AutoencoderTrainingConfig],
) -> None:
    before = {name: value.clone() for name, value in perceptual.state_dict().items()}
    train_autoencoder(kl, images, make_training(), None, Views(perceptual), 0, silent)
    after = perceptual.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_decoder_training_optimises_the_decoder_alone(
    kl: Autoencoder, make_arm: Callable[..., ArmConfig]
) -> None:
    trained = {id(p) for p in _trainable(kl, make_arm(trainable=Trainable.decoder))}
    decoder = [*kl.model.decoder.parameters(), *kl.model.post_quant_conv.parameters()]
    assert trained == {id(p) for p in decoder}


def test_the_explicit_term_reaches_the_encoder_only(kl: Autoencoder, x: Tensor) -> None:
    result = forward(kl, x, Draw(explicit=TURN), torch.randn(4, 4, 8, 8), Recipe(None))
    result.explicit.backward()
    assert reached(kl) == {"model.encoder", "model.quant_conv"}


def test_the_explicit_term_is_the_mean_squared_difference_of_means(
    kl: Autoencoder, x: Tensor
) -> None:
    result = forward(kl, x, Draw(explicit=TURN), torch.randn(4, 4, 8, 8), Recipe(None))
    expected = TURN.on_latents(kl.encode(x).mean) - kl.encode(TURN.on_images(x, 2)).mean
    assert torch.allclose(result.explicit, expected.square().mean())
    assert torch.equal(result.target, x)


def test_without_gradient_the_target_of_the_explicit_term_is_a_constant(
    kl: Autoencoder, x: Tensor, make_arm: Callable[..., ArmConfig]
) -> None:
    def gradient(stop: bool) -> Tensor:
        arm = make_arm(explicit_weight=0.1, explicit_stop_gradient=stop)
        term = forward(kl, x, Draw(explicit=TURN), None, Recipe(arm)).explicit
        kl.zero_grad()
        term.backward()
        grad = kl.model.quant_conv.weight.grad
        assert grad is not None
        return grad.clone()

    with torch.no_grad():
        target = kl.encode(TURN.on_images(x, 2)).mean
    kl.zero_grad()
    (TURN.on_latents(kl.encode(x).mean) - target).square().mean().backward()
    by_hand = kl.model.quant_conv.weight.grad
    assert by_hand is not None
    by_hand = by_hand.clone()
    assert torch.allclose(gradient(True), by_hand)
    assert not torch.allclose(gradient(False), by_hand)


def test_the_down_scaled_term_compares_smaller_images(kl: Autoencoder, x: Tensor) -> None:
    noise = torch.randn(4, 4, 8, 8)
    result = forward(kl, x, Draw(downscaled=SMALL), noise, Recipe(None))
    assert result.downscaled is not None
    target, reconstruction = result.downscaled
    latents = SMALL.on_latents(kl.encode(x).sample(noise))
    assert torch.equal(target, SMALL.on_images(x, 2))
    assert torch.equal(reconstruction, kl.decode(latents))
    (target - reconstruction).abs().mean().backward()
    assert {"model.encoder", "model.decoder"} <= reached(kl)


def test_after_quantisation_codebook_entries_move(
    vq: Autoencoder, x: Tensor, make_arm: Callable[..., ArmConfig]
) -> None:
    small = Transform(5, 5, 1, Interpolation.bilinear, antialias=False)
    recipe = Recipe(make_arm(after_quantisation=True))
    result = forward(vq, x, Draw(equivariant=small), None, recipe)
    embeddings = vq.quantise(vq.encode(x).mean).embeddings
    expected = vq.decode_embeddings(small.on_latents(embeddings))
    assert torch.equal(result.reconstruction, expected)
    before = forward(vq, x, Draw(equivariant=small), None, Recipe(None)).reconstruction
    assert not torch.allclose(before, expected)
    (result.target - result.reconstruction).abs().mean().backward()
    assert {"model.encoder", "model.quant_conv"} <= reached(vq)


def test_quantisation_terms_on_both_codes_are_their_mean(vq: Autoencoder, x: Tensor) -> None:
    result = forward(vq, x, Draw(equivariant=TURN), None, Recipe(None, True))
    features = vq.encode(x).mean
    codes = vq.quantise(features), vq.quantise(TURN.on_latents(features))
    codebook, commitment = ([c.codebook_loss for c in codes], [c.commitment_loss for c in codes])
    assert torch.allclose(result.codebook, torch.stack(codebook).mean())
    assert torch.allclose(result.commitment, torch.stack(commitment).mean())


def test_nothing_remains_elsewhere_after_a_step(
    kl: Autoencoder,
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_arm: Callable[..., ArmConfig],
    make_training: Callable[..., AutoencoderTrainingConfig],
) -> None:
    arm = make_arm(trainable=Trainable.decoder, explicit_weight=0.1, downscaled_weight=0.25)
    train_autoencoder(kl, images, make_training(), arm, Views(perceptual), 0, silent)
    encoder = [p for module in kl.encoder_modules() for p in module.parameters()]
    assert all(p.grad is None for p in (*encoder, *perceptual.parameters()))
