from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from study.config import DiTConfig, LatentSpec, Objective, SamplerConfig
from study.generators.common import Batch, SampleNoise, guided
from study.generators.diffusion import Schedule
from study.generators.dit import DiT

CONFIG = DiTConfig(objective=Objective.dit, num_timesteps=1000, beta_start=1e-4, beta_end=0.02)
FULL = Schedule.linear(CONFIG)
CPU = torch.device("cpu")
AsModule = Callable[[Callable[..., Tensor]], nn.Module]
MakeSampler = Callable[..., SamplerConfig]


def bar_of(t: Tensor) -> Tensor:
    return FULL.alpha_bar[t].float().view(-1, 1, 1, 1)


def test_the_bound_trains_the_variance_only(numbers: torch.Generator, as_module: AsModule) -> None:
    guess = torch.randn(4, 2, 3, 3, requires_grad=True)
    fraction = torch.randn(4, 2, 3, 3, requires_grad=True)
    network = as_module(lambda x, t, labels: torch.cat([guess, fraction], 1))
    batch = Batch(
        latents=torch.randn(4, 2, 3, 3), tokens=None, labels=torch.zeros(4).long(), images=None
    )
    terms = DiT(CONFIG).terms(network, batch, numbers)
    assert torch.autograd.grad(terms["variational"], guess, retain_graph=True)[0].any() == 0
    assert torch.autograd.grad(terms["variational"], fraction, retain_graph=True)[0].any()
    assert torch.autograd.grad(terms["noise"], guess, retain_graph=True)[0].any()
    assert not torch.autograd.grad(terms["noise"], fraction)[0].any()


def test_latents_are_required(numbers: torch.Generator, as_module: AsModule) -> None:
    batch = Batch(latents=None, tokens=None, labels=torch.zeros(4).long(), images=None)
    with pytest.raises(ValueError, match="latents: must be given"):
        DiT(CONFIG).terms(as_module(lambda *_: torch.zeros(1)), batch, numbers)


# DDPM's last step must add no noise: its deviation would be 0.007.
@pytest.mark.parametrize("method", ["ddpm", "ddim"])
@pytest.mark.parametrize("num_steps", [5, 50])
def test_the_exact_noise_recovers_the_data(
    num_steps: int, method: str, as_module: AsModule, make_sampler: MakeSampler, spec: LatentSpec
) -> None:
    data = torch.randn(2, 4, 8, 8)

    def exact(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        noise = (x - bar_of(t).sqrt() * data) / (1 - bar_of(t)).sqrt()
        return torch.cat([noise, torch.zeros_like(x)], 1)

    noise, labels = SampleNoise(0, [0, 1], CPU), torch.tensor([0, 1])
    sampler = make_sampler(method)
    samples = DiT(CONFIG).sample(as_module(exact), spec, labels, noise, sampler, num_steps)
    torch.testing.assert_close(samples, data, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_samplers_recover_mean_and_std(
    method: str, as_module: AsModule, make_sampler: MakeSampler, spec: LatentSpec
) -> None:
    mean, std = 1.5, 0.5

    def exact(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        bar = bar_of(t)
        noise = (1 - bar).sqrt() * (x - bar.sqrt() * mean) / (bar * std**2 + 1 - bar)
        return torch.cat([noise, torch.full_like(x, -1)], 1)

    noise, labels = SampleNoise(0, list(range(32)), CPU), torch.zeros(32).long()
    sampler = make_sampler(method)
    samples = DiT(CONFIG).sample(as_module(exact), spec, labels, noise, sampler, 250)
    # 8192 values: four standard errors are 0.022 and 0.016; 250 of 1000 steps add some bias.
    assert float(samples.mean()) == pytest.approx(mean, abs=0.03)
    assert float(samples.std()) == pytest.approx(std, abs=0.03)


def test_another_objectives_sampler_is_refused(
    as_module: AsModule, make_sampler: MakeSampler, spec: LatentSpec
) -> None:
    network = as_module(lambda x, t, labels: torch.cat([x, x], 1))
    noise, labels = SampleNoise(0, [0], CPU), torch.tensor([0])
    with pytest.raises(ValueError, match="method = heun: must be ddpm or ddim"):
        DiT(CONFIG).sample(network, spec, labels, noise, make_sampler("heun"), 2)


def test_guidance_leaves_the_variance_of_the_class() -> None:
    def labelled(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        value = labels.view(-1, 1, 1, 1).float().expand_as(x)
        return torch.cat([value, 10 * value], 1)

    x, t = torch.zeros(2, 4, 8, 8), torch.zeros(2).long()
    output = guided(labelled, x, t, torch.tensor([1, 3]), 4, 2.0, channels=4)
    noise, fraction = output.chunk(2, dim=1)
    # null class 4: 4 + 2 (1 - 4) and 4 + 2 (3 - 4)
    assert noise[:, 0, 0, 0].tolist() == [-2, 2]
    assert fraction[:, 0, 0, 0].tolist() == [10, 30]


def test_the_noise_term_is_the_mean_squared_error(
    numbers: torch.Generator, as_module: AsModule
) -> None:
    seen: list[Tensor] = []

    def network(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        seen.extend([x, t])
        return torch.zeros(4, 4, 3, 3)

    data = torch.randn(4, 2, 3, 3)
    batch = Batch(latents=data, tokens=None, labels=torch.zeros(4).long(), images=None)
    term = DiT(CONFIG).terms(as_module(network), batch, numbers)["noise"]
    x, t = seen
    noise = (x - bar_of(t).sqrt() * data) / (1 - bar_of(t)).sqrt()
    assert float(term) == pytest.approx(float(noise.square().mean()), rel=1e-3)


def test_the_loss_is_the_sum_of_both_terms() -> None:
    assert DiT(CONFIG).weights == {"noise": 1.0, "variational": 1.0}
