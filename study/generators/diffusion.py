"""Discrete-time diffusion: constants of the process, its reverse steps, its variational bound."""

import math

import torch
from torch import Tensor

from study.config import DiTConfig


class Schedule:
    """Constants of the forward process q(x_t | x_0) for given betas, in float64 [DDPM, Sec. 2].

    x_t = signal x_0 + noise eps, with signal^2 + noise^2 = 1.
    """

    def __init__(self, betas: Tensor, steps: Tensor) -> None:
        self.steps = steps
        """Step numbers of the full process, which the network was trained on."""
        self.betas = betas
        self.alpha_bar = torch.cumprod(1 - betas, 0)
        before = torch.cat([betas.new_ones(1), self.alpha_bar[:-1]])
        self.signal, self.noise = self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt()
        self.signal_before, self.noise_before = before.sqrt(), (1 - before).sqrt()
        variance = betas * (1 - before) / (1 - self.alpha_bar)
        # The posterior variance is 0 at the first step: its log takes the second's value (ADM).
        clipped = torch.cat([variance[1:2], variance[1:]]) if len(betas) > 1 else betas
        self.log_variance = clipped.log()
        self.log_betas = betas.log()
        self.from_x_0 = betas * before.sqrt() / (1 - self.alpha_bar)
        self.from_x_t = (1 - before) * (1 - betas).sqrt() / (1 - self.alpha_bar)
        self._placed: dict[tuple[str, torch.device], Tensor] = {}

    @classmethod
    def linear(cls, config: DiTConfig) -> "Schedule":
        """Betas linear between start and end, all steps."""
        count = config.num_timesteps
        betas = torch.linspace(config.beta_start, config.beta_end, count, dtype=torch.float64)
        return cls(betas, torch.arange(count))

    def respaced(self, count: int) -> "Schedule":
        """The process on `count` evenly spaced steps, first and last included [ADM 2102.09672]."""
        if count > len(self.betas):
            raise ValueError(f"num_steps = {count}: must be at most {len(self.betas)}")
        stride = (len(self.betas) - 1) / max(1, count - 1)
        return self.keep([round(stride * i) for i in range(count)])

    def keep(self, kept: list[int]) -> "Schedule":
        """The process on the steps of these indices, ascending, with their noise levels."""
        bar = self.alpha_bar[kept]
        before = torch.cat([bar.new_ones(1), bar[:-1]])
        return Schedule(1 - bar / before, self.steps[kept])

    def at(self, name: str, index: Tensor) -> Tensor:
        """One of the constants at step indices B, as fp32 B 1 1 1; moved to a device only once."""
        key = (name, index.device)
        if key not in self._placed:
            self._placed[key] = getattr(self, name).float().to(index.device)
        return self._placed[key][index].view(-1, 1, 1, 1)

    def noised(self, x_0: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        """Draw x_t from q(x_t | x_0) [DDPM, Eq. 4]."""
        return self.at("signal", index) * x_0 + self.at("noise", index) * noise

    def x_0_from_noise(self, x: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        """(x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar)."""
        return (x - self.at("noise", index) * noise) / self.at("signal", index)

    def posterior_mean(self, x_0: Tensor, x: Tensor, index: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0) [DDPM, Eq. 7]."""
        return self.at("from_x_0", index) * x_0 + self.at("from_x_t", index) * x

    def learned_log_variance(self, fraction: Tensor, index: Tensor) -> Tensor:
        """Between log posterior variance (-1) and log beta (1) [2102.09672, Eq. 15]."""
        share = (fraction + 1) / 2
        low, high = self.at("log_variance", index), self.at("log_betas", index)
        return share * high + (1 - share) * low

    def ancestral_step(
        self, x: Tensor, index: Tensor, noise: Tensor, fraction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(x_{t-1} | x_t) [DDPM, Alg. 2; 2102.09672, Eq. 15]."""
        mean = self.posterior_mean(self.x_0_from_noise(x, index, noise), x, index)
        return mean, (0.5 * self.learned_log_variance(fraction, index)).exp()

    def implicit_step(self, x: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        """Deterministic x_{t-1} [DDIM, 2010.02502, Eq. 12 with sigma 0]."""
        x_0 = self.x_0_from_noise(x, index, noise)
        return self.at("signal_before", index) * x_0 + self.at("noise_before", index) * noise


def variational_bound(
    schedule: Schedule, x_0: Tensor, x: Tensor, index: Tensor, noise: Tensor, fraction: Tensor
) -> Tensor:
    """Bound per sample in bits per dimension, B [2102.09672, Eq. 4 to 7].

    KL(q(x_{t-1} | x_t, x_0) || p) for t > 0; at t = 0 the negative log likelihood of 8-bit data
    under a discretised Gaussian, as DiT's code has it even for latents.
    """
    true_mean = schedule.posterior_mean(x_0, x, index)
    true_log = schedule.at("log_variance", index)
    mean = schedule.posterior_mean(schedule.x_0_from_noise(x, index, noise), x, index)
    log_variance = schedule.learned_log_variance(fraction, index)
    divergence = 0.5 * (
        log_variance
        - true_log
        + torch.exp(true_log - log_variance)
        + (true_mean - mean).square() * torch.exp(-log_variance)
        - 1
    )
    likelihood = -discretised_log_likelihood(x_0, mean, 0.5 * log_variance)
    bits = torch.where(index.view(-1, 1, 1, 1) == 0, likelihood, divergence) / math.log(2)
    return bits.flatten(1).mean(1)


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of the 1/255-wide bin around x in [-1, 1]; open bins at the ends [DDPM]."""
    inverse = torch.exp(-log_scale)

    def below(bound: Tensor) -> Tensor:
        return torch.special.ndtr(inverse * (bound - mean))

    upper, lower = below(x + 1 / 255), below(x - 1 / 255)
    inside = (upper - lower).clamp(min=1e-12).log()
    inside = torch.where(x < -0.999, upper.clamp(min=1e-12).log(), inside)
    return torch.where(x > 0.999, (1 - lower).clamp(min=1e-12).log(), inside)
