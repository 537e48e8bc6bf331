from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from study.config import LatentSpec, SamplerConfig, SiTConfig, load_group
from study.generators.common import Batch, SampleNoise, times
from study.generators.sit import (
    SiT,
    Velocity,
    integrate_ode,
    integrate_sde,
    interpolant,
    score_from_velocity,
    shifted,
)

PATHS = ["linear", "gvp"]
MEAN, STD = 1.5, 0.5
CPU = torch.device("cpu")
AsModule = Callable[[Callable[..., Tensor]], nn.Module]
MakeSampler = Callable[..., SamplerConfig]


def sit(path: str, shift: float = 1.0) -> SiT:
    published = load_group(SiTConfig, "generator", "sit")
    return SiT(replace(published, path=path, time_shift=shift))


def batch_of(latents: Tensor | None, count: int = 4) -> Batch:
    labels = torch.zeros(count, dtype=torch.int64)
    return Batch(latents=latents, tokens=None, labels=labels, images=None)


def exact_velocity(path: str) -> Velocity:
    """E[alpha' x_0 + sigma' eps | x_t = x] for data N(MEAN, STD^2)."""

    def velocity(x: Tensor, t: float) -> Tensor:
        alpha, sigma, d_alpha, d_sigma = interpolant(path, torch.tensor(t, dtype=x.dtype))
        variance = alpha**2 * STD**2 + sigma**2
        slope = (alpha * d_alpha * STD**2 + sigma * d_sigma) / variance
        return d_alpha * MEAN + slope * (x - alpha * MEAN)

    return velocity


@pytest.mark.parametrize("path", PATHS)
def test_ends_are_data_and_noise(path: str) -> None:
    alpha, sigma, _, _ = interpolant(path, torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(alpha, torch.tensor([1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(sigma, torch.tensor([0.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("path", PATHS)
def test_derivatives_equal_finite_differences(path: str) -> None:
    t, h = torch.linspace(0.01, 0.99, 50, dtype=torch.float64), 1e-6
    ahead, behind = interpolant(path, t + h), interpolant(path, t - h)
    _, _, d_alpha, d_sigma = interpolant(path, t)
    torch.testing.assert_close(d_alpha, (ahead[0] - behind[0]) / (2 * h), atol=1e-8, rtol=0)
    torch.testing.assert_close(d_sigma, (ahead[1] - behind[1]) / (2 * h), atol=1e-8, rtol=0)


def test_gvp_preserves_variance() -> None:
    alpha, sigma, _, _ = interpolant("gvp", torch.linspace(0, 1, 20))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(20))


@pytest.mark.parametrize("path", PATHS)
def test_score_is_minus_noise_over_sigma(path: str) -> None:
    data, noise = (torch.randn(5, 2, 3, 3, dtype=torch.float64) for _ in range(2))
    t = torch.linspace(0.1, 1, 5, dtype=torch.float64)
    alpha, sigma, d_alpha, d_sigma = interpolant(path, times(t, 4))
    x, velocity = alpha * data + sigma * noise, d_alpha * data + d_sigma * noise
    torch.testing.assert_close(score_from_velocity(path, velocity, x, t), -noise / sigma)


@pytest.mark.parametrize("path", PATHS)
def test_training_point_and_velocity_follow_the_path(path: str, numbers: torch.Generator) -> None:
    data = torch.randn(4, 2, 3, 3)
    x, t, velocity = sit(path).noised(batch_of(data), numbers)
    alpha, sigma, d_alpha, d_sigma = interpolant(path, times(t, 4))
    noise = (x - alpha * data) / sigma
    torch.testing.assert_close(velocity, d_alpha * data + d_sigma * noise, atol=1e-4, rtol=1e-4)


def test_training_times_are_uniform(numbers: torch.Generator) -> None:
    _, t, _ = sit("linear").noised(batch_of(torch.zeros(10000, 1, 1, 1), 10000), numbers)
    counts = torch.histc(t, bins=10, min=0, max=1)
    assert (counts - 1000).abs().max() < 4 * 900**0.5


def test_the_exact_velocity_of_one_image_has_no_loss(
    as_module: AsModule, numbers: torch.Generator
) -> None:
    network = as_module(lambda x, t, labels: (x - 2.0) / times(t, 4))
    terms = sit("linear").terms(network, batch_of(torch.full((4, 2, 3, 3), 2.0)), numbers)
    assert set(terms) == {"velocity"}
    assert float(terms["velocity"]) == pytest.approx(0, abs=1e-6)


def test_latents_are_required(numbers: torch.Generator) -> None:
    with pytest.raises(ValueError, match="latents: must be given"):
        sit("linear").noised(batch_of(None), numbers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("second_order", "ratio"), [(False, 2), (True, 4)])
def test_ode_converges_at_its_order(path: str, second_order: bool, ratio: int) -> None:
    # The exact flow maps noise eps to MEAN + STD eps.
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    errors = [
        (integrate_ode(exact_velocity(path), noise, n, second_order) - MEAN - STD * noise)
        .abs()
        .max()
        for n in (80, 160)
    ]
    assert float(errors[0] / errors[1]) == pytest.approx(ratio, rel=0.1)
    assert errors[1] < 0.02


def test_sde_takes_its_last_step_without_noise() -> None:
    moments: list[float] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        moments.append(t)
        return torch.zeros_like(x)

    noise = SampleNoise(0, [0], CPU)
    integrate_sde(velocity, torch.zeros(1, 1, 2, 2), 4, 0.1, noise, "linear")
    assert moments == pytest.approx([1.0, 0.7, 0.4, 0.1])
    left = noise.normal((1, 2, 2))
    again = SampleNoise(0, [0], CPU)
    for _ in range(3):
        again.normal((1, 2, 2))
    assert torch.equal(left, again.normal((1, 2, 2)))


def test_the_published_last_step_is_noise_free_and_ends_at_the_data() -> None:
    # For one image the drift points at it: x - 0.04 (v - sigma score), with v = (x - image) / t.
    sampled: list[tuple[Tensor, float]] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        sampled.append((x, t))
        return (x - 2.0) / t

    noise = SampleNoise(0, [0], CPU)
    end = integrate_sde(velocity, noise.normal((1, 4, 4)), 250, 0.04, noise, "linear")
    x, t = sampled[-1]
    assert (len(sampled), t) == (250, pytest.approx(0.04))
    score = -(x - (1 - t) * 2.0) / t**2
    torch.testing.assert_close(end, x - 0.04 * ((x - 2.0) / t - t * score))


def test_guidance_extrapolates_from_the_null_class(
    as_module: AsModule, make_sampler: MakeSampler, spec: LatentSpec
) -> None:
    # Velocity 1 for a class and 0 for the null class: one Euler step of size -1 moves by -scale.
    network = as_module(lambda x, t, y: torch.ones_like(x) * times((y < 4).float(), 4))
    labels = torch.tensor([0, 1])
    start = SampleNoise(0, [0, 1], CPU).normal((4, 8, 8))
    for scale in (1.0, 3.0):
        noise = SampleNoise(0, [0, 1], CPU)
        sampler = make_sampler("euler", cfg_scale=scale)
        moved = sit("linear").sample(network, spec, labels, noise, sampler, 1)
        torch.testing.assert_close(moved, start - scale)


def test_another_objectives_sampler_is_refused(
    as_module: AsModule, make_sampler: MakeSampler, spec: LatentSpec
) -> None:
    noise, labels = SampleNoise(0, [0], CPU), torch.tensor([0])
    network = as_module(lambda x, t, labels: x)
    with pytest.raises(ValueError, match="method = ddim: must be euler"):
        sit("linear").sample(network, spec, labels, noise, make_sampler("ddim"), 2)


def test_a_shift_divides_the_ratio_of_signal_and_noise() -> None:
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    assert torch.equal(shifted(t, 1.0), t)
    for shift in (0.5, 2.0):
        ends = shifted(torch.tensor([0.0, 1.0]), shift)
        torch.testing.assert_close(ends, torch.tensor([0.0, 1.0]))
        (alpha, sigma, *_), (a, s, *_) = (interpolant("linear", x) for x in (shifted(t, shift), t))
        torch.testing.assert_close(alpha / sigma, a / s / shift)
        torch.testing.assert_close(shifted(shifted(t, shift), 1 / shift), t)


def test_training_times_are_shifted() -> None:
    batch = batch_of(torch.randn(64, 1, 2, 2), 64)
    plain, moved = (
        sit("linear", shift).noised(batch, torch.Generator().manual_seed(0))[1] for shift in (1, 2)
    )
    torch.testing.assert_close(moved, shifted(plain, 2.0))


@pytest.mark.parametrize("second_order", [False, True])
def test_samplers_step_at_shifted_times(second_order: bool) -> None:
    seen: list[float] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        seen.append(t)
        return exact_velocity("linear")(x, t)

    noise = torch.randn(50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = integrate_ode(velocity, noise, 100, second_order, shift=2.0)
    steps = shifted(torch.linspace(1, 0, 101), 2.0)
    assert set(seen) <= set(steps.tolist())
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(samples.std()) == pytest.approx(STD, abs=0.02)
