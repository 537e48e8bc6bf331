import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn

from study.config import DiTConfig, LatentSpec, Objective, SamplerConfig
from study.generators.common import Batch, SampleNoise
from study.generators.dit import DiT, Schedule, discretised_log_likelihood, variational_bound

CONFIG = DiTConfig(objective=Objective.dit, num_timesteps=1000, beta_start=1e-4, beta_end=0.02)
FULL = Schedule.linear(CONFIG)
CPU = torch.device("cpu")
AsModule = Callable[[Callable[..., Tensor]], nn.Module]
MakeSampler = Callable[..., SamplerConfig]


def bar_of(t: Tensor) -> Tensor:
    return FULL.alpha_bar[t].float().view(-1, 1, 1, 1)


def test_linear_betas_equal_the_librarys() -> None:
    theirs = DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02)
    torch.testing.assert_close(FULL.alpha_bar.float(), theirs.alphas_cumprod, rtol=1e-4, atol=1e-9)


def test_a_process_respaced_to_all_steps_is_the_full_one() -> None:
    same = FULL.respaced(1000)
    assert torch.equal(same.steps, FULL.steps)
    for name in ("betas", "alpha_bar", "log_variance", "from_x_0", "from_x_t"):
        torch.testing.assert_close(getattr(same, name), getattr(FULL, name), rtol=1e-8, atol=0)


@pytest.mark.parametrize("count", [2, 10, 250])
def test_a_respaced_process_keeps_its_noise_levels(count: int) -> None:
    short = FULL.respaced(count)
    assert (int(short.steps[0]), int(short.steps[-1])) == (0, 999)
    assert short.steps.diff().max() - short.steps.diff().min() <= 1
    torch.testing.assert_close(short.alpha_bar, FULL.alpha_bar[short.steps])


def test_more_steps_than_the_process_has_are_refused() -> None:
    with pytest.raises(ValueError, match="num_steps = 1001: must be at most 1000"):
        FULL.respaced(1001)


def test_the_posterior_follows_from_bayes() -> None:
    # q(x_{t-1} | x_0) = N(sqrt(bar') x_0, 1 - bar'), q(x_t | x_{t-1}) = N(sqrt(1 - b) x_{t-1}, b).
    t = torch.arange(1, 1000)
    beta, before = FULL.betas[t], FULL.alpha_bar[t - 1]
    precision = (1 - beta) / beta + 1 / (1 - before)
    torch.testing.assert_close(FULL.log_variance[t].exp(), 1 / precision)
    torch.testing.assert_close(FULL.from_x_0[t], before.sqrt() / (1 - before) / precision)
    torch.testing.assert_close(FULL.from_x_t[t], (1 - beta).sqrt() / beta / precision)


def test_posterior_variance_is_the_published_formula() -> None:
    t = torch.arange(1, 1000)
    expected = FULL.betas[t] * (1 - FULL.alpha_bar[t - 1]) / (1 - FULL.alpha_bar[t])
    torch.testing.assert_close(FULL.log_variance[t].exp(), expected)
    assert FULL.log_variance[0] == FULL.log_variance[1]


def test_noise_gives_back_the_data() -> None:
    data, noise, t = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3), torch.tensor([0, 9, 99, 500])
    x = bar_of(t).sqrt() * data + (1 - bar_of(t)).sqrt() * noise
    torch.testing.assert_close(FULL.x_0_from_noise(x, t, noise), data, atol=1e-4, rtol=1e-4)


def test_learned_variance_lies_between_posterior_and_beta() -> None:
    t = torch.tensor([1, 500])
    ends = [FULL.learned_log_variance(torch.full((2, 1, 1, 1), f), t) for f in (-1.0, 1.0)]
    torch.testing.assert_close(ends[0].flatten(), FULL.log_variance[t].float())
    torch.testing.assert_close(ends[1].flatten(), FULL.log_betas[t].float())


def test_variational_bound_equals_an_independent_one() -> None:
    torch.manual_seed(0)
    t = torch.tensor([1, 2, 50, 400, 999])
    data, eps, guess, fraction = (torch.randn(5, 2, 3, 3, dtype=torch.float64) for _ in range(4))
    bar = FULL.alpha_bar[t].view(-1, 1, 1, 1)
    before, beta = FULL.alpha_bar[t - 1].view(-1, 1, 1, 1), FULL.betas[t].view(-1, 1, 1, 1)
    x = bar.sqrt() * data + (1 - bar).sqrt() * eps

    def mean(x_0: Tensor) -> Tensor:
        ours, theirs = (
            before.sqrt() * beta / (1 - bar),
            (1 - beta).sqrt() * (1 - before) / (1 - bar),
        )
        return ours * x_0 + theirs * x

    posterior = beta * (1 - before) / (1 - bar)
    share = (fraction + 1) / 2
    learned = (share * beta.log() + (1 - share) * posterior.log()).exp()
    truth = torch.distributions.Normal(mean(data), posterior.sqrt())
    model = torch.distributions.Normal(
        mean((x - (1 - bar).sqrt() * guess) / bar.sqrt()), learned.sqrt()
    )
    expected = torch.distributions.kl_divergence(truth, model).flatten(1).mean(1) / math.log(2)
    ours = variational_bound(FULL, data.float(), x.float(), t, guess.float(), fraction.float())
    torch.testing.assert_close(ours.double(), expected, rtol=1e-3, atol=1e-6)


def test_the_first_step_is_a_likelihood_of_8_bit_values() -> None:
    data, guess = torch.full((1, 1, 2, 2), 0.3), torch.zeros(1, 1, 2, 2)
    t, fraction = torch.tensor([0]), torch.full((1, 1, 2, 2), 1.0)
    x = bar_of(t).sqrt() * data
    normal = torch.distributions.Normal(0.3, float(FULL.betas[0]) ** 0.5)
    low, high = (normal.cdf(torch.tensor(0.3 + s / 255)) for s in (-1, 1))
    bound = variational_bound(FULL, data, x, t, guess, fraction)
    assert float(bound) == pytest.approx(-math.log2(float(high - low)), rel=1e-3)


def test_discretised_likelihood_sums_to_one() -> None:
    values = torch.linspace(-1, 1, 256)
    for mean, scale in ((0.0, 0.1), (0.9, 0.3), (-1.2, 0.5)):
        log_p = discretised_log_likelihood(
            values, torch.tensor(mean), torch.tensor(math.log(scale))
        )
        assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-3)


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


@pytest.mark.parametrize("num_steps", [5, 50])
def test_ddim_with_the_exact_noise_recovers_the_data(
    num_steps: int, as_module: AsModule, make_sampler: MakeSampler, spec: LatentSpec
) -> None:
    data = torch.randn(2, 4, 8, 8)

    def exact(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        noise = (x - bar_of(t).sqrt() * data) / (1 - bar_of(t)).sqrt()
        return torch.cat([noise, torch.zeros_like(x)], 1)

    noise, labels = SampleNoise(0, [0, 1], CPU), torch.tensor([0, 1])
    sampler = make_sampler("ddim")
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


def test_guidance_leaves_the_variance_of_the_class(as_module: AsModule, spec: LatentSpec) -> None:
    def labelled(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        value = labels.view(-1, 1, 1, 1).float().expand_as(x)
        return torch.cat([value, 10 * value], 1)

    x, t = torch.zeros(2, 4, 8, 8), torch.zeros(2).long()
    noise, fraction = DiT(CONFIG)._guided(
        as_module(labelled), x, t, torch.tensor([1, 3]), spec, 2.0
    )
    # null class 4: 4 + 2 (1 - 4) and 4 + 2 (3 - 4)
    assert noise[:, 0, 0, 0].tolist() == [-2, 2]
    assert fraction[:, 0, 0, 0].tolist() == [10, 30]


def test_another_objectives_sampler_is_refused(
    as_module: AsModule, make_sampler: MakeSampler, spec: LatentSpec
) -> None:
    network = as_module(lambda x, t, labels: torch.cat([x, x], 1))
    noise, labels = SampleNoise(0, [0], CPU), torch.tensor([0])
    with pytest.raises(ValueError, match="method = heun: must be ddpm or ddim"):
        DiT(CONFIG).sample(network, spec, labels, noise, make_sampler("heun"), 2)


def test_betas_matter() -> None:
    other = Schedule.linear(replace(CONFIG, beta_end=0.01))
    assert not torch.allclose(other.alpha_bar, FULL.alpha_bar)
