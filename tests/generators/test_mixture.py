"""Samplers on a mixture of Gaussians, whose exact velocity, noise and moments are known."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from study.config import DiTConfig, LatentSpec, Objective, SamplerConfig, SiTConfig, load_group
from study.generators.common import SampleNoise
from study.generators.diffusion import Schedule
from study.generators.dit import DiT
from study.generators.sit import SiT, interpolant

MakeSampler = Callable[..., SamplerConfig]
AsModule = Callable[[Callable[..., Tensor]], nn.Module]
PATHS = ["linear", "gvp"]
SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[-1.0, 0.5], [1.5, 1.0], [0.0, -1.5]], dtype=torch.float64)
COVARIANCES = torch.tensor(
    [[[0.2, 0.1], [0.1, 0.3]], [[0.1, -0.05], [-0.05, 0.4]], [[0.3, 0.0], [0.0, 0.1]]],
    dtype=torch.float64,
)
MEAN = SHARES @ MEANS
COVARIANCE = (
    torch.einsum("k,kij->ij", SHARES, COVARIANCES)
    + torch.einsum("k,ki,kj->ij", SHARES, MEANS, MEANS)
    - torch.outer(MEAN, MEAN)
)


def expected(x: Tensor, alpha: float, sigma: float, width: float = 1) -> tuple[Tensor, Tensor]:
    """E[x_0 | x] and E[eps | x] of x = alpha x_0 + sigma eps, for x of shape B 2 1 1, any type.

    x_0 is the mixture times a width.
    """
    means, covariances = width * MEANS, width**2 * COVARIANCES
    flat = x.flatten(1).double()
    noisy = alpha**2 * covariances + sigma**2 * torch.eye(2, dtype=torch.float64)
    off = flat[:, None] - alpha * means  # B K 2
    solved = torch.einsum("kij,bkj->bki", noisy.inverse(), off)
    log_p = SHARES.log() - 0.5 * (noisy.logdet() + (off * solved).sum(2))
    weights = log_p.softmax(1)[..., None]
    x_0 = means + alpha * torch.einsum("kij,bkj->bki", covariances, solved)
    both = (weights * x_0).sum(1), (weights * sigma * solved).sum(1)
    return both[0].view_as(x).to(x), both[1].view_as(x).to(x)


class Noise(SampleNoise):
    """Noise of many samples from one generator: what it depends on does not matter here."""

    def __init__(self, count: int) -> None:
        self.count, self.source = count, torch.Generator().manual_seed(0)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn((self.count, *shape), generator=self.source)


@pytest.fixture
def plane(spec: LatentSpec) -> LatentSpec:
    """Latents of two numbers."""
    return replace(spec, channels=2, side=1, mean=[0.0, 0.0], std=[1.0, 1.0])


@pytest.fixture
def flow(
    plane: LatentSpec, as_module: AsModule, make_sampler: MakeSampler
) -> Callable[..., Tensor]:
    """Samples B 2 of SiT with the exact velocity."""

    def run(
        path: str, method: str, num_steps: int, count: int, width: float = 1, **changes: float
    ) -> Tensor:
        def velocity(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
            terms = interpolant(path, t[:1].double())
            alpha, sigma, d_alpha, d_sigma = (float(term) for term in terms)
            x_0, noise = expected(x, alpha, sigma, width)
            return d_alpha * x_0 + d_sigma * noise

        objective = SiT(replace(load_group(SiTConfig, "generator", "sit"), path=path))
        labels, sampler = torch.zeros(count).long(), make_sampler(method, **changes)
        network = as_module(velocity)
        return objective.sample(network, plane, labels, Noise(count), sampler, num_steps).flatten(1)

    return run


def off_moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Differences from the exact mean and covariance in Monte-Carlo standard errors."""
    samples = samples.double()
    centred = samples - samples.mean(0)
    products = torch.einsum("bi,bj->bij", centred, centred)
    mean = (samples.mean(0) - MEAN) / samples.std(0)
    covariance = (products.mean(0) - COVARIANCE) / products.std(0)
    return math.sqrt(len(samples)) * mean, math.sqrt(len(samples)) * covariance


def recovers(samples: Tensor) -> None:
    """Mean and covariance are within four Monte-Carlo standard errors of n samples."""
    for errors in off_moments(samples):
        assert errors.abs().max() < 4


# Enough steps for the bias to be below a standard error of 4,096 samples, 1.6 % of a deviation.
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("method", "num_steps"), [("euler", 400), ("heun", 40)])
def test_the_ode_recovers_mean_and_covariance(
    flow: Callable[..., Tensor], path: str, method: str, num_steps: int
) -> None:
    recovers(flow(path, method, num_steps, 4096))


@pytest.mark.parametrize("path", PATHS)
def test_the_sde_recovers_mean_and_covariance(flow: Callable[..., Tensor], path: str) -> None:
    recovers(flow(path, "euler_maruyama", 500, 4096, last_step=1 / 500))


@pytest.mark.parametrize("path", PATHS)
def test_the_sde_error_falls_with_the_steps(flow: Callable[..., Tensor], path: str) -> None:
    # A narrow mixture, where errors are large: 24 and 40 % of the covariance at 25 steps.
    truth, errors = 0.1**2 * COVARIANCE, []
    for steps in (25, 100, 400):
        samples = flow(path, "euler_maruyama", steps, 20_000, width=0.1, last_step=1 / steps)
        errors.append(float((torch.cov(samples.double().T) - truth).norm() / truth.norm()))
    # The Monte-Carlo error of a covariance of 20,000 samples is about 0.7 %.
    assert errors[0] > 0.2
    assert errors[0] > 4 * errors[1]
    assert errors[1] > 3 * errors[2]
    assert errors[2] < 0.014


@pytest.mark.parametrize("path", PATHS)
def test_the_adaptive_ode_recovers_mean_and_covariance(
    flow: Callable[..., Tensor], path: str
) -> None:
    pytest.importorskip("torchdiffeq")
    samples = flow(path, "dopri5", 1, 4096)
    recovers(samples)
    # Far more steps than needed give the same samples: both solve one equation.
    torch.testing.assert_close(samples, flow(path, "heun", 400, 4096), atol=5e-3, rtol=0)


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_diffusion_recovers_mean_and_covariance(
    method: str, plane: LatentSpec, as_module: AsModule, make_sampler: MakeSampler
) -> None:
    config = DiTConfig(objective=Objective.dit, num_timesteps=1000, beta_start=1e-4, beta_end=0.02)
    schedule = Schedule.linear(config)

    def network(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        step = int(t[0])
        alpha, sigma = float(schedule.signal[step]), float(schedule.noise[step])
        # Of the two published bounds of the variance the lower one, exact for a single image.
        return torch.cat([expected(x, alpha, sigma)[1], torch.full_like(x, -1)], 1)

    count = 4096
    labels, sampler = torch.zeros(count).long(), make_sampler(method)
    objective = DiT(config)
    samples = objective.sample(as_module(network), plane, labels, Noise(count), sampler, 1000)
    recovers(samples.flatten(1))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("method", "ratio"), [("euler", 2), ("heun", 4)])
def test_ode_samplers_converge_at_their_order(
    flow: Callable[..., Tensor], path: str, method: str, ratio: int
) -> None:
    exact = flow(path, "heun", 640, 256)
    errors = [(flow(path, method, n, 256) - exact).square().mean().sqrt() for n in (40, 80)]
    assert float(errors[0] / errors[1]) == pytest.approx(ratio, rel=0.15)
