from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from study.autoencoders import step, train
from study.autoencoders.models import Autoencoder
from study.autoencoders.monitor import Monitor, Views, range_over_last
from study.autoencoders.objective import Draw, Forward, Recipe, draw_branch, forward
from study.autoencoders.train import decay, train_autoencoder
from study.config import (
    ArmConfig,
    AutoencoderTrainingConfig,
    Family,
    Interpolation,
    Precision,
    load_group,
)
from study.data.store import to_float
from study.equivariance import Transform
from study.evaluation.networks.perceptual import PerceptualDistance

MakeArm = Callable[..., ArmConfig]
MakeTraining = Callable[..., AutoencoderTrainingConfig]
Train = Callable[..., Any]
"""Fixture `trained`: gives weights and log."""
TURN = Transform(4, 4, 1, Interpolation.bilinear, antialias=False)


@pytest.fixture
def x(images: np.ndarray) -> Tensor:
    return to_float(torch.from_numpy(images[:4]))


def test_released_recipe_mixes_half_three_eighths_one_eighth() -> None:
    arm = load_group(ArmConfig, "arm", "eq")
    counts = Counter()
    for seed in range(4000):
        draw = draw_branch(arm, 32, torch.Generator().manual_seed(seed))
        counts[draw.equivariant is not None, draw.low_resolution is not None] += 1
    # Four standard deviations of a binomial share of 4000.
    assert counts[True, False] / 4000 == pytest.approx(0.5, abs=0.032)
    assert counts[False, False] / 4000 == pytest.approx(0.375, abs=0.031)
    assert counts[False, True] / 4000 == pytest.approx(0.125, abs=0.021)
    assert counts[True, True] == 0


def test_without_an_arm_every_step_is_identity() -> None:
    assert draw_branch(None, 8, torch.Generator()) == Draw()


def test_equivariant_step_compares_with_the_transformed_image(kl: Autoencoder, x: Tensor) -> None:
    noise = torch.randn(4, 4, 8, 8)
    result = forward(kl, x, Draw(equivariant=TURN), noise, Recipe(None))
    latents = kl.encode(x).sample(noise)
    assert torch.equal(result.target, TURN.on_images(x, 2))
    assert torch.equal(result.reconstruction, kl.decode(TURN.on_latents(latents)))


def test_regularisers_see_the_untransformed_code(autoencoder: Autoencoder, x: Tensor) -> None:
    noise = torch.randn(4, 4, 8, 8)
    moved = forward(autoencoder, x, Draw(equivariant=TURN), noise, Recipe(None))
    still = forward(autoencoder, x, Draw(), noise, Recipe(None))
    assert (moved.kl, moved.codebook, moved.commitment) == (
        still.kl,
        still.codebook,
        still.commitment,
    )
    assert torch.equal(still.kl, autoencoder.encode(x).kl().mean())


def test_the_transform_acts_before_quantisation(vq: Autoencoder, x: Tensor) -> None:
    tau = Transform(5, 5, 0, Interpolation.bilinear, antialias=False)
    result = forward(vq, x, Draw(equivariant=tau), None, Recipe(None))
    assert torch.equal(result.reconstruction, vq.decode(tau.on_latents(vq.encode(x).mean)))


def test_low_resolution_step_encodes_the_small_image(kl: Autoencoder, x: Tensor) -> None:
    small = Transform(4, 4, 0, Interpolation.bilinear, antialias=False)
    noise = torch.randn(4, 4, 8, 8)
    result = forward(kl, x, Draw(low_resolution=small), noise, Recipe(None))
    expected = small.on_images(x, 2)
    latents = kl.encode(expected).sample(noise[..., :4, :4])
    assert torch.equal(result.target, expected)
    assert torch.equal(result.reconstruction, kl.decode(latents))


def test_without_quantisation_features_are_decoded(vq: Autoencoder, x: Tensor) -> None:
    result = forward(vq, x, Draw(), None, Recipe(None), quantise=False)
    assert torch.equal(result.reconstruction, vq.decode_embeddings(vq.encode(x).mean))
    assert float(result.codebook) == float(result.commitment) == 0


@pytest.mark.parametrize("family", list(Family))
def test_eq_with_zero_probabilities_is_plain_bit_for_bit(
    trained: Train,
    make_arm: MakeArm,
    make_training: MakeTraining,
    plain: ArmConfig,
    family: Family,
) -> None:
    off = make_arm(equivariance_probability=0.0, low_resolution_probability=0.0)
    config = make_training()
    assert trained(config, off, family).same_weights(trained(config, plain, family))


def test_same_seed_gives_the_same_weights(
    trained: Train, make_arm: MakeArm, make_training: MakeTraining
) -> None:
    first = trained(make_training(), make_arm())
    assert first.same_weights(trained(make_training(), make_arm()))
    assert not first.same_weights(trained(make_training(), make_arm(), seed=1))


def test_arms_see_the_same_images_and_posterior_noise(
    trained: Train,
    make_arm: MakeArm,
    make_training: MakeTraining,
    plain: ArmConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def recording(
        autoencoder: Autoencoder, images: Tensor, draw: Draw, noise: Tensor, *rest: Any
    ) -> Forward:
        seen.append((images, noise))
        return forward(autoencoder, images, draw, noise, *rest)

    monkeypatch.setattr(step, "forward", recording)
    always = make_arm(equivariance_probability=1.0, low_resolution_probability=0.0)
    explicit = make_arm(equivariance_probability=0.0, explicit_weight=0.1)
    for arm in (plain, always, explicit):
        trained(make_training(), arm)
    first, *others = (seen[k : k + 3] for k in (0, 3, 6))
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            assert torch.equal(mine[0], theirs[0])
            assert torch.equal(mine[1], theirs[1])


def test_every_image_is_seen_once_per_epoch(images: np.ndarray) -> None:
    for epoch in range(2):
        batches = [train._batch(images, 4, n, 0) for n in range(4 * epoch, 4 * epoch + 4)]
        seen = sorted(image.numpy().tobytes() for image in torch.cat(batches))
        assert seen == sorted(image.tobytes() for image in images)


def test_a_term_that_is_not_finite_ends_training(
    kl: Autoencoder, images: np.ndarray, perceptual: PerceptualDistance, make_training: MakeTraining
) -> None:
    with torch.no_grad():
        kl.last_layer().fill_(torch.nan)
    with pytest.raises(RuntimeError, match="step 0: loss term pixel = nan: must be finite"):
        train_autoencoder(kl, images, make_training(), None, Views(perceptual), 0, lambda *_: None)


def test_the_adversarial_term_starts_at_its_step(
    trained: Train, make_training: MakeTraining, plain: ArmConfig
) -> None:
    log = trained(make_training(steps=4, adversarial_start=2), plain).log
    assert [row["adversarial"] != 0 for row in log] == [False, False, True, True]
    assert [row["discriminator"] != 0 for row in log] == [False, False, True, True]


def test_the_codebook_is_drawn_from_features_at_its_step(
    vq: Autoencoder, images: np.ndarray, perceptual: PerceptualDistance, make_training: MakeTraining
) -> None:
    config = make_training(steps=2, codebook_start=1, learning_rate=1e-9, adversarial_weight=0.0)
    train_autoencoder(vq, images, config, None, Views(perceptual), 0, lambda *_: None)
    features = vq.encode(to_float(torch.from_numpy(images))).mean.permute(0, 2, 3, 1).flatten(0, 2)
    entries = vq.model.quantize.embedding.weight.detach()
    exact = "donot_use_mm_for_euclid_dist"
    nearest = torch.cdist(entries, features.detach(), compute_mode=exact).amin(1)
    assert float(nearest.max()) < 1e-4


@pytest.mark.parametrize("family", list(Family))
def test_training_lowers_the_pixel_error(
    trained: Train, make_training: MakeTraining, plain: ArmConfig, family: Family
) -> None:
    config = make_training(steps=40, learning_rate=1e-2, adversarial_weight=0.0)
    pixels = [row["pixel"] for row in trained(config, plain, family).log]
    assert np.mean(pixels[-5:]) < 0.8 * np.mean(pixels[:2])


def test_a_shared_draw_gives_the_discriminator_the_pair_the_autoencoder_was_judged_on(
    trained: Train, make_training: MakeTraining, make_arm: MakeArm, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws: list[Draw] = []

    def recording(
        autoencoder: Autoencoder, images: Tensor, draw: Draw, noise: Tensor, *rest: Any
    ) -> Forward:
        draws.append(draw)
        return forward(autoencoder, images, draw, noise, *rest)

    monkeypatch.setattr(step, "forward", recording)
    shared = trained(make_training(), make_arm())
    assert len(draws) == 3
    separate = trained(make_training(separate_draws=True), make_arm())
    assert len(draws) == 9
    assert draws[3::2] == draws[:3]
    assert draws[4::2] != draws[:3]
    assert not shared.same_weights(separate)


def test_held_out_images_are_measured_before_at_the_points_and_at_the_end(
    kl: Autoencoder, images: np.ndarray, perceptual: PerceptualDistance, make_training: MakeTraining
) -> None:
    log: dict[int, dict[str, float]] = {}
    config = make_training(steps=5, monitor_points=2)
    views = Views(perceptual, monitor=Monitor(images[:4], perceptual, 0.5))
    train_autoencoder(kl, images, config, None, views, 0, log.__setitem__)
    measured = [step for step, row in log.items() if "equivariance_error" in row]
    assert measured == [0, 2, 5]
    assert "pixel" not in log[0]
    assert log[5]["held_out_reconstruction"] == pytest.approx(
        log[5]["held_out_pixel"] + 0.5 * log[5]["held_out_perceptual"]
    )


def test_watching_does_not_change_training(
    make_autoencoder: Callable[[Family], Autoencoder],
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_training: MakeTraining,
    make_arm: MakeArm,
) -> None:
    views = Views(perceptual), Views(perceptual, monitor=Monitor(images[:4], perceptual, 0.5))
    weights = []
    for each in views:
        autoencoder = make_autoencoder(Family.kl)
        config = make_training(monitor_points=3)
        train_autoencoder(autoencoder, images, config, make_arm(), each, 0, lambda *_: None)
        weights.append(autoencoder.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("draw", "areas"),
    [
        (Draw(), (1.0, 1.0)),
        (Draw(equivariant=TURN), (1.0, 0.25)),
        (Draw(low_resolution=TURN), (0.25, 0.25)),
        (Draw(explicit=TURN), (1.25, 1.0)),
        (Draw(downscaled=TURN), (1.0, 1.25)),
    ],
)
def test_work_is_counted_in_areas_of_the_image(draw: Draw, areas: tuple[float, float]) -> None:
    assert draw.areas(8) == areas


def test_an_equivariant_run_decodes_less_than_a_plain_one(
    kl: Autoencoder,
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_training: MakeTraining,
    make_arm: MakeArm,
) -> None:
    arm = make_arm(equivariance_probability=1.0, low_resolution_probability=0.0)
    work = train_autoencoder(
        kl, images, make_training(), arm, Views(perceptual), 0, lambda *_: None
    )
    assert work.encoded == 1.0
    assert work.decoded < 1.0


def test_range_over_the_last_fifth() -> None:
    points = [(0, 9.0), (79, 5.0), (80, 2.2), (90, 1.9), (100, 2.0)]
    assert range_over_last(points) == pytest.approx(0.15)
    assert range_over_last([(0, 3.0), (100, 2.0)]) == 0.0


@torch.no_grad()
def test_bf16_passes_give_fp32_close_to_those_of_fp32(autoencoder: Autoencoder, x: Tensor) -> None:
    exact = autoencoder.encode(x).mean
    images = autoencoder.decode(exact)
    autoencoder.precision = Precision.bf16
    latents = autoencoder.encode(x).mean
    assert latents.dtype is torch.float32
    assert not torch.equal(latents, exact)
    assert float((latents - exact).std() / exact.std()) < 0.02
    assert float((autoencoder.decode(exact) - images).abs().max()) < 0.05


def test_training_in_bf16_follows_that_in_fp32(
    trained: Train, make_training: MakeTraining, make_arm: MakeArm
) -> None:
    logs = [
        trained(
            make_training(steps=20, precision=precision, adversarial_weight=0.0), make_arm()
        ).log
        for precision in Precision
    ]
    pixel, other = ([row["pixel"] for row in log] for log in logs)
    assert pixel != other
    assert np.mean(other) == pytest.approx(np.mean(pixel), rel=0.02)


def test_what_is_measured_is_measured_in_fp32(
    kl: Autoencoder, images: np.ndarray, perceptual: PerceptualDistance
) -> None:
    monitor = Monitor(images[:4], perceptual, 0.5)
    exact = monitor(kl)
    kl.precision = Precision.bf16
    assert monitor(kl) == exact
    assert kl.precision is Precision.bf16


def test_the_rate_falls_as_a_squared_half_cosine() -> None:
    assert [decay(step, 100) for step in (0, 50, 100)] == pytest.approx([1, 0.25, 0])
    assert decay(80, 100) < 0.01
