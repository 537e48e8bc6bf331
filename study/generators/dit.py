"""DiT: discrete-time diffusion with learned variance [2212.09748; ADM 2102.09672, 2105.05233]."""

import math

import torch
from torch import Tensor, nn

from study.config import BackboneConfig, DiTConfig, LatentSpec, SamplerConfig, SamplingMethod
from study.generators.backbone import Transformer
from study.generators.common import Batch, SampleNoise, guided


class Schedule:
    """Constants of the forward process q(x_t | x_0) for given betas, in float64 [DDPM, Sec. 2]."""

    def __init__(self, betas: Tensor, steps: Tensor) -> None:
        self.steps = steps
        """Step numbers of the full process, which the network was trained on."""
        self.betas = betas
        self.alpha_bar = torch.cumprod(1 - betas, 0)
        before = torch.cat([betas.new_ones(1), self.alpha_bar[:-1]])
        self.alpha_bar_before = before
        variance = betas * (1 - before) / (1 - self.alpha_bar)
        # The posterior variance is 0 at the first step: its log takes the second's value (ADM).
        clipped = torch.cat([variance[1:2], variance[1:]]) if len(betas) > 1 else betas
        self.log_variance = clipped.log()
        self.log_betas = betas.log()
        self.from_x_0 = betas * before.sqrt() / (1 - self.alpha_bar)
        self.from_x_t = (1 - before) * (1 - betas).sqrt() / (1 - self.alpha_bar)

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
        kept = torch.tensor([round(stride * i) for i in range(count)])
        bar = self.alpha_bar[kept]
        before = torch.cat([bar.new_ones(1), bar[:-1]])
        return Schedule(1 - bar / before, self.steps[kept])

    def at(self, values: Tensor, index: Tensor) -> Tensor:
        """Values of step indices B, as fp32 B 1 1 1."""
        return values.to(index.device)[index].float().view(-1, 1, 1, 1)

    def x_0_from_noise(self, x: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        """(x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar)."""
        bar = self.at(self.alpha_bar, index)
        return (x - (1 - bar).sqrt() * noise) / bar.sqrt()

    def posterior_mean(self, x_0: Tensor, x: Tensor, index: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0) [DDPM, Eq. 7]."""
        return self.at(self.from_x_0, index) * x_0 + self.at(self.from_x_t, index) * x

    def learned_log_variance(self, fraction: Tensor, index: Tensor) -> Tensor:
        """Between log posterior variance (-1) and log beta (1) [2102.09672, Eq. 15]."""
        share = (fraction + 1) / 2
        low, high = self.at(self.log_variance, index), self.at(self.log_betas, index)
        return share * high + (1 - share) * low


class DiT:
    """Objective and samplers of DiT."""

    needs_images = False

    def __init__(self, config: DiTConfig) -> None:
        self.schedule = Schedule.linear(config)
        self.weights = {"noise": 1.0, "variational": 1.0}

    def build(self, backbone: BackboneConfig, spec: LatentSpec) -> nn.Module:
        """The shared transformer with twice the channels: noise and variance."""
        return Transformer(backbone, spec.channels, 2 * spec.channels, spec.side, spec.num_classes)

    def terms(
        self, network: nn.Module, batch: Batch, numbers: torch.Generator
    ) -> dict[str, Tensor]:
        """Noise error, and the variational bound for the variance alone [2102.09672, Eq. 16]."""
        x_0 = batch.latents
        if x_0 is None:
            raise ValueError("batch.latents: must be given for a continuous generator")
        schedule = self.schedule
        index = torch.randint(
            len(schedule.betas), (len(x_0),), generator=numbers, device=x_0.device
        )
        noise = torch.randn(x_0.shape, generator=numbers, device=x_0.device)
        bar = schedule.at(schedule.alpha_bar, index)
        x = bar.sqrt() * x_0 + (1 - bar).sqrt() * noise
        predicted, fraction = network(x, index, batch.labels).chunk(2, dim=1)
        bound = variational_bound(schedule, x_0, x, index, predicted.detach(), fraction)
        return {"noise": (predicted - noise).square().mean(), "variational": bound.mean()}

    def sample(
        self,
        network: nn.Module,
        spec: LatentSpec,
        labels: Tensor,
        noise: SampleNoise,
        sampler: SamplerConfig,
        num_steps: int,
    ) -> Tensor:
        """Reverse process on `num_steps` respaced steps; B c h w, standardised."""
        schedule = self.schedule.respaced(num_steps)
        shape = (spec.channels, spec.side, spec.side)
        x = noise.normal(shape)
        for number in reversed(range(num_steps)):
            index = torch.full((len(x),), number, device=x.device)
            t = torch.full((len(x),), int(schedule.steps[number]), device=x.device)
            predicted, fraction = self._guided(network, x, t, labels, spec, sampler.cfg_scale)
            x_0 = schedule.x_0_from_noise(x, index, predicted)
            match sampler.method:
                case SamplingMethod.ddpm:
                    spread = (0.5 * schedule.learned_log_variance(fraction, index)).exp()
                    x = schedule.posterior_mean(x_0, x, index)
                    x = x + spread * noise.normal(shape) if number else x
                case SamplingMethod.ddim:
                    bar = schedule.at(schedule.alpha_bar_before, index)
                    x = bar.sqrt() * x_0 + (1 - bar).sqrt() * predicted
                case method:
                    raise ValueError(f"method = {method.value}: must be ddpm or ddim")
        return x

    def _guided(
        self,
        network: nn.Module,
        x: Tensor,
        t: Tensor,
        labels: Tensor,
        spec: LatentSpec,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        """Guided noise; the variance stays that of the class, as published."""
        if scale == 1:
            first, second = network(x, t, labels).chunk(2, dim=1)
            return first, second
        fractions: list[Tensor] = []

        def noise_only(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
            predicted, fraction = network(x, t, labels).chunk(2, dim=1)
            fractions.append(fraction.chunk(2)[0])
            return predicted

        predicted = guided(noise_only, x, t, labels, spec.num_classes, scale)
        return predicted, fractions[0]


def variational_bound(
    schedule: Schedule, x_0: Tensor, x: Tensor, index: Tensor, noise: Tensor, fraction: Tensor
) -> Tensor:
    """Bound per sample in bits per dimension, B [2102.09672, Eq. 4 to 7].

    KL(q(x_{t-1} | x_t, x_0) || p) for t > 0; at t = 0 the negative log likelihood of 8-bit data
    under a discretised Gaussian, as DiT's code has it even for latents.
    """
    true_mean = schedule.posterior_mean(x_0, x, index)
    true_log = schedule.at(schedule.log_variance, index)
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
