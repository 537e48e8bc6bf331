"""MaskGIT: masked token prediction and parallel decoding [2202.04200]."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import BackboneConfig, LatentSpec, MaskGITConfig, SamplerConfig, SamplingMethod
from study.distributed import mine, whole
from study.generators.common import Batch, SampleNoise, guidance_at, guided
from study.generators.halton import halton_order
from study.generators.token_backbone import TokenTransformer

IGNORED = -100
"""Target of tokens without loss."""


def masked_share(schedule: str, progress: Tensor) -> Tensor:
    """Share of masked tokens at progress 0 (all) to 1 (none) [MaskGIT, Sec. 3.3; 2503.17076]."""
    match schedule:
        case "cosine":
            return torch.cos(math.pi / 2 * progress)
        case "arccos":
            return 2 / math.pi * torch.arccos(progress)
        case _:
            return 1 - progress


class MaskedCrossEntropy(nn.Module):
    """Cross-entropy of masked tokens, smoothed labels [MaskGIT, Eq. 1]; fp32 within."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, tokens: Tensor, masked: Tensor) -> Tensor:
        """Mean over masked tokens of logits B N K."""
        # Not logits[masked]: its shape depends on the data, which a GPU would have to report.
        return functional.cross_entropy(
            logits.flatten(0, 1).float(),
            tokens.masked_fill(~masked, IGNORED).flatten(),
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
        )


class MaskGIT:
    """Objective and samplers of MaskGIT."""

    needs_images = False

    def __init__(self, config: MaskGITConfig) -> None:
        self.config = config
        self.weights = {"cross_entropy": 1.0}
        self.loss = MaskedCrossEntropy(config.label_smoothing)

    def build(self, backbone: BackboneConfig, spec: LatentSpec) -> nn.Module:
        """The transformer over tokens."""
        dropout = self.config.dropout
        return TokenTransformer(backbone, spec.codebook_size, spec.side, spec.num_classes, dropout)

    def terms(
        self, network: nn.Module, batch: Batch, numbers: torch.Generator
    ) -> dict[str, Tensor]:
        """Cross-entropy of a random share of the tokens, which is masked."""
        tokens = batch.tokens
        if tokens is None or not isinstance(network, TokenTransformer):
            raise ValueError("MaskGIT: needs a token transformer and tokens in the batch")
        count, length, device = whole(len(tokens)), tokens.shape[1], tokens.device
        share = masked_share(
            self.config.schedule, torch.rand(count, 1, generator=numbers, device=device)
        )
        order = torch.rand((count, length), generator=numbers, device=device).argsort(1).argsort(1)
        everywhere = order < (share * length).ceil().clamp(min=1)
        masked = mine(everywhere)
        seen = tokens.masked_fill(masked, network.mask_token)
        logits = network(seen, batch.labels, numbers)
        loss = self.loss(logits, tokens, masked)
        if count > len(tokens):
            # A mean over masked tokens: processes weigh by how many of them they have.
            loss = loss * (masked.sum() / everywhere.sum() * (count // len(tokens)))
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
        """Unmask the grid in `num_steps` steps; tokens B h w.

        `confidence`: draw all, keep the surest, mask the rest again. Confidence is log p plus
        Gumbel noise times `temperature`, annealed linearly to zero. `halton`: draw the next
        positions of the Halton order, with logits divided by `temperature`.
        """
        count = spec.side**2
        order = torch.from_numpy(halton_order(spec.side)).to(labels.device)
        tokens = torch.full((len(labels), count), spec.codebook_size, device=labels.device)
        temperature = sampler.temperature or 0.0

        def logits_of(x: Tensor, _: Tensor, labels: Tensor) -> Tensor:
            return network(x, labels)

        before = 0
        for step in range(num_steps):
            scale = guidance_at(sampler, 1 - before / count)
            logits = guided(logits_of, tokens, labels, labels, spec.num_classes, scale).float()
            progress = (step + 1) / num_steps
            share = float(masked_share(self.config.schedule, torch.tensor(progress)))
            # At least one more at every step, as published, however many steps there are.
            known = min(count, max(count - int(share * count), before + 1))
            match sampler.method:
                case SamplingMethod.confidence:
                    heat = temperature * (1 - progress)
                    tokens = _surest(tokens, logits, noise, spec.codebook_size, known, heat)
                case SamplingMethod.halton:
                    chosen = order[before:known]
                    drawn = categorical(logits / temperature, noise.uniform((count,)))
                    tokens[:, chosen] = drawn[:, chosen]
                case method:
                    rule = "must be confidence or halton"
                    raise ValueError(f"method = {method.value}: {rule}")
            before = known
        return tokens.view(-1, spec.side, spec.side)


def _surest(
    tokens: Tensor, logits: Tensor, noise: SampleNoise, mask: int, known: int, heat: float
) -> Tensor:
    """Tokens after one step of confidence sampling, `known` of them not masked."""
    count = tokens.shape[1]
    drawn = categorical(logits, noise.uniform((count,)))
    fixed = tokens != mask
    drawn = torch.where(fixed, tokens, drawn)
    sure = logits.log_softmax(2).gather(2, drawn[..., None])[..., 0]
    sure = sure + heat * gumbel(noise.uniform((count,)))
    rank = sure.masked_fill(fixed, math.inf).argsort(1).argsort(1)
    return drawn.masked_fill(rank < count - known, mask)


def categorical(logits: Tensor, uniform: Tensor) -> Tensor:
    """Indices drawn by inversion of the cumulative distribution, B N.

    In fixed point: sums of whole numbers are the same in any order, on any device.

    Args:
        logits: B N K.
        uniform: B N in [0, 1).
    """
    below = (logits.softmax(2) * 2.0**40).long().cumsum(2)
    threshold = (uniform.double() * below[..., -1]).long()
    drawn = torch.searchsorted(below, threshold[..., None], right=True)[..., 0]
    return drawn.clamp(max=logits.shape[2] - 1)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform numbers."""
    return -(-uniform.clamp(1e-20, 1 - 1e-7).log()).log()
