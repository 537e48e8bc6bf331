"""DiT: discrete-time diffusion with learned variance [2212.09748; ADM 2102.09672, 2105.05233]."""

import torch
from torch import Tensor, nn

from study.config import BackboneConfig, DiTConfig, LatentSpec, SamplerConfig, SamplingMethod
from study.distributed import mine, whole
from study.generators.backbone import Transformer
from study.generators.common import Batch, SampleNoise, guidance_at, guided
from study.generators.diffusion import Schedule, variational_bound


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
        schedule, device = self.schedule, x_0.device
        steps, count = len(schedule.betas), whole(len(x_0))
        index = mine(torch.randint(steps, (count,), generator=numbers, device=device))
        noise = mine(torch.randn((count, *x_0.shape[1:]), generator=numbers, device=device))
        x = schedule.noised(x_0, index, noise)
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
        """Reverse process on `num_steps` respaced steps; B c h w, standardised.

        Guidance acts on the noise; the variance stays that of the class, as published.
        """
        schedule, last = self.schedule.respaced(num_steps), len(self.schedule.steps) - 1
        shape = (spec.channels, spec.side, spec.side)
        channels = sampler.cfg_channels or spec.channels
        x = noise.normal(shape)
        for number in reversed(range(num_steps)):
            step = int(schedule.steps[number])
            index = torch.full((len(x),), number, device=x.device)
            t = torch.full((len(x),), step, device=x.device)
            scale = guidance_at(sampler, step / last)
            output = guided(network, x, t, labels, spec.num_classes, scale, channels)
            predicted, fraction = output.chunk(2, dim=1)
            match sampler.method:
                case SamplingMethod.ddpm:
                    x, spread = schedule.ancestral_step(x, index, predicted, fraction)
                    x = x + spread * noise.normal(shape) if number else x
                case SamplingMethod.ddim:
                    x = schedule.implicit_step(x, index, predicted)
                case method:
                    raise ValueError(f"method = {method.value}: must be ddpm or ddim")
        return x
