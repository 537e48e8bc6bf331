import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from study.config import DiTConfig, Objective
from study.generators.diffusion import Schedule, discretised_log_likelihood, variational_bound

CONFIG = DiTConfig(objective=Objective.dit, num_timesteps=1000, beta_start=1e-4, beta_end=0.02)
FULL = Schedule.linear(CONFIG)


def bar_of(t: Tensor) -> Tensor:
    return FULL.alpha_bar[t].float().view(-1, 1, 1, 1)


def exact(scheduler: DDPMScheduler | DDIMScheduler) -> None:
    """Give diffusers' scheduler, which computes in fp32, its constants in float64."""
    scheduler.betas = torch.from_numpy(np.linspace(1e-4, 0.02, 1000))
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)  # pyright: ignore


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


# DiT's 250 steps of 1000, and a few, with the first, inner and last ones.
@pytest.mark.parametrize(("count", "numbers"), [(250, [249, 248, 100, 1, 0]), (4, [3, 2, 1, 0])])
def test_ancestral_steps_equal_the_librarys(count: int, numbers: list[int]) -> None:
    schedule = FULL.respaced(count)
    theirs = DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        variance_type="learned_range",
        clip_sample=False,
        timestep_spacing="linspace",
    )
    theirs.set_timesteps(count)
    assert theirs.timesteps.flip(0).tolist() == schedule.steps.tolist()
    exact(theirs)
    x, predicted, fraction = (drawn(2, 3, 4, 4, seed=seed) for seed in range(3))
    for number in numbers:
        step = int(schedule.steps[number])
        output = theirs.step(
            torch.cat([predicted, fraction], 1), step, x, torch.Generator().manual_seed(7), False
        )
        index = torch.tensor([number, number])
        mean, spread = schedule.ancestral_step(x, index, predicted, fraction)
        ours = mean + spread * drawn(2, 3, 4, 4, seed=7) if number else mean
        # Ours takes its constants in fp32.
        torch.testing.assert_close(ours, output[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [10, 250])
def test_implicit_steps_equal_the_librarys(count: int) -> None:
    theirs = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        clip_sample=False,
        timestep_spacing="leading",
    )
    theirs.set_timesteps(count)
    # The library steps by 1000 / count whatever the spacing, which fits this one only.
    steps = theirs.timesteps.flip(0).tolist()
    schedule = FULL.keep(steps)
    exact(theirs)
    theirs.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    x, predicted = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1)
    for number in (count - 1, count // 2, 1, 0):
        output = theirs.step(predicted, steps[number], x, return_dict=False)
        ours = schedule.implicit_step(x, torch.tensor([number, number]), predicted)
        torch.testing.assert_close(ours, output[0], rtol=1e-5, atol=1e-5)


def independent_bound(t: int, data: Tensor, x: Tensor, guess: Tensor, fraction: Tensor) -> float:
    """Bits per dimension of one sample, in float64, from products of the betas and by numbers."""
    betas = np.linspace(1e-4, 0.02, 1000)
    bar, before = np.prod(1 - betas[: t + 1]), np.prod(1 - betas[:t])
    beta = betas[t]
    x_0, x_t, eps, v = (values.flatten().numpy() for values in (data, x, guess, fraction))

    def mean(start: np.ndarray) -> np.ndarray:
        near = before**0.5 * beta / (1 - bar) * start
        return near + (1 - beta) ** 0.5 * (1 - before) / (1 - bar) * x_t

    first = betas[1] * (1 - (1 - betas[0])) / (1 - (1 - betas[0]) * (1 - betas[1]))
    posterior = beta * (1 - before) / (1 - bar) if t else first
    variance = beta ** ((v + 1) / 2) * posterior ** ((1 - v) / 2)
    guessed = mean((x_t - (1 - bar) ** 0.5 * eps) / bar**0.5)
    if t:
        ratio = posterior / variance
        nats = 0.5 * (ratio - 1 - np.log(ratio) + (mean(x_0) - guessed) ** 2 / variance)
    else:
        nats = np.empty_like(x_0)
        for i, value in enumerate(x_0):
            spread = math.sqrt(2 * variance[i])
            low, high = (value + s / 255 - guessed[i] for s in (-1, 1))
            mass = 0.5 * (math.erf(high / spread) - math.erf(low / spread))
            nats[i] = -math.log(max(mass, 1e-12))
    return float(nats.mean() / math.log(2))


def test_the_variational_bound_equals_an_independent_one_in_float64() -> None:
    t = torch.tensor([0, 0, 1, 2, 50, 400, 998, 999])
    data, noise, guess, fraction = (drawn(8, 2, 3, 3, seed=seed) for seed in range(4))
    data = data.clamp(-0.9, 0.9)
    guess = torch.where((t == 0).view(-1, 1, 1, 1), noise, noise + 0.5 * guess)
    bar = FULL.alpha_bar[t].view(-1, 1, 1, 1)
    x = bar.sqrt() * data + (1 - bar).sqrt() * noise
    expected = [
        independent_bound(int(t[i]), data[i], x[i], guess[i], fraction[i]) for i in range(8)
    ]
    data, x, guess, fraction = (values.float() for values in (data, x, guess, fraction))
    ours = variational_bound(FULL, data, x, t, guess, fraction)
    assert ours.tolist() == pytest.approx(expected, rel=2e-5)


def test_constants_are_moved_once_and_in_fp32() -> None:
    schedule = Schedule.linear(CONFIG)
    first = schedule.at("signal", torch.tensor([3]))
    assert first.dtype == torch.float32
    assert len(schedule._placed) == 1
    schedule.at("signal", torch.tensor([5]))
    assert len(schedule._placed) == 1


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


def test_betas_matter() -> None:
    other = Schedule.linear(replace(CONFIG, beta_end=0.01))
    assert not torch.allclose(other.alpha_bar, FULL.alpha_bar)
