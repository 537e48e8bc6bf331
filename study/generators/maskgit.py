"""MaskGIT: masked token prediction and parallel decoding [2202.04200]."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import BackboneConfig, LatentSpec, MaskGITConfig, SamplerConfig, SamplingMethod
from study.generators.backbone import TokenTransformer
from study.generators.common import Batch, SampleNoise, guided


def masked_share(schedule: str, progress: Tensor) -> Tensor:
    """Share of masked tokens at progress 0 (all) to 1 (none) [MaskGIT, Sec. 3.3]."""
    return torch.cos(math.pi / 2 * progress) if schedule == "cosine" else 1 - progress


class MaskGIT:
    """Objective and sampler of MaskGIT."""

    needs_images = False

    def __init__(self, config: MaskGITConfig) -> None:
        self.config = config
        self.weights = {"cross_entropy": 1.0}

    def build(self, backbone: BackboneConfig, spec: LatentSpec) -> nn.Module:
        """The transformer over tokens."""
        return TokenTransformer(backbone, spec.codebook_size, spec.side, spec.num_classes)

    def terms(
        self, network: nn.Module, batch: Batch, numbers: torch.Generator
    ) -> dict[str, Tensor]:
        """Cross-entropy of masked tokens, smoothed labels [MaskGIT, Eq. 1]."""
        tokens = batch.tokens
        if tokens is None or not isinstance(network, TokenTransformer):
            raise ValueError("MaskGIT: needs a token transformer and tokens in the batch")
        device = tokens.device
        share = masked_share(
            self.config.schedule, torch.rand(len(tokens), 1, generator=numbers, device=device)
        )
        order = torch.rand(tokens.shape, generator=numbers, device=device).argsort(1).argsort(1)
        masked = order < (share * tokens.shape[1]).ceil().clamp(min=1)
        logits = network(tokens.masked_fill(masked, network.mask_token), batch.labels)
        loss = functional.cross_entropy(
            logits[masked], tokens[masked], label_smoothing=self.config.label_smoothing
        )
        return {"cross_entropy": loss}

    @torch.no_grad()
    def sample(
        self,
        network: nn.Module,
        spec: LatentSpec,
        labels: Tensor,
        noise: SampleNoise,
        sampler: SamplerConfig,
        num_steps: int,
    ) -> Tensor:
        """Confidence sampling: keep the surest tokens, re-mask the rest; tokens B h w.

        Confidence is log p plus Gumbel noise times `temperature`, annealed linearly to zero.
        """
        if sampler.method is not SamplingMethod.confidence:
            raise ValueError(f"method = {sampler.method.value}: must be confidence")
        count = spec.side**2
        mask = spec.codebook_size
        tokens = torch.full((len(labels), count), mask, device=labels.device)

        def logits_of(x: Tensor, _: Tensor, labels: Tensor) -> Tensor:
            return network(x, labels)

        for step in range(num_steps):
            progress = (step + 1) / num_steps
            logits = guided(logits_of, tokens, labels, labels, spec.num_classes, sampler.cfg_scale)
            log_p = logits.float().log_softmax(2)
            drawn = (log_p + gumbel(noise.uniform((count, spec.codebook_size)))).argmax(2)
            known = tokens != mask
            drawn = torch.where(known, tokens, drawn)
            sure = log_p.gather(2, drawn[..., None])[..., 0]
            heat = (sampler.temperature or 0.0) * (1 - progress)
            sure = sure + heat * gumbel(noise.uniform((count,)))
            sure = sure.masked_fill(known, math.inf)
            left = float(masked_share(self.config.schedule, torch.tensor(progress)))
            again = int(left * count)
            rank = sure.argsort(1).argsort(1)
            tokens = drawn.masked_fill(rank < again, mask)
        return tokens.view(-1, spec.side, spec.side)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform numbers."""
    return -(-uniform.clamp(1e-20, 1 - 1e-7).log()).log()
