"""Sampling: labels, noise and images keyed by sample index, whatever the batches are."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from study.acceleration import autocast, compile_parts, kernels
from study.config import LatentSpec, Precision, SamplerConfig, SamplingMethod
from study.generators.common import GeneratorObjective, SampleNoise
from study.generators.step import compiled_parts


def sample_labels(class_counts: list[int], count: int) -> np.ndarray:
    """Labels of `count` samples in the class frequencies of the reference set.

    Largest remainders, then interleaved by a fixed low-discrepancy order, so that any first part
    has about the same frequencies.
    """
    shares = np.asarray(class_counts) / sum(class_counts) * count
    numbers = np.floor(shares).astype(int)
    rest = np.argsort(-(shares - numbers), kind="stable")[: count - numbers.sum()]
    numbers[rest] += 1
    places = [((i + 0.5) / n, label) for label, n in enumerate(numbers) for i in range(n)]
    return np.array([label for _, label in sorted(places)], dtype=np.int64)


@torch.inference_mode()
def sample_batches(
    network: nn.Module,
    objective: GeneratorObjective,
    spec: LatentSpec,
    labels: np.ndarray,
    sampler: SamplerConfig,
    num_steps: int,
    micro_batch_size: int,
    seed: int,
    device: torch.device,
    process: int = 0,
    num_processes: int = 1,
    precision: Precision = Precision.fp32,
    done: int = 0,
) -> Iterator[Tensor]:
    """Standardised latents (B c h w) or tokens (B h w) of all samples, in order.

    The last micro-batch is padded to full size, so that every sample is computed in a batch of the
    same shape. Of several processes each computes every `num_processes`th micro-batch, the same
    ones that a single process would.

    Args:
        network: frozen.
        objective: whose sampler it is.
        spec: of the latents.
        labels: of all samples.
        sampler: method and guidance.
        num_steps: of the sampler.
        micro_batch_size: samples per batch.
        seed: of the noise, which depends on it and on the sample's index alone.
        device: of the network.
        process: from 0.
        num_processes: among which micro-batches are dealt out.
        precision: of the network's passes; what the sampler keeps stays in fp32.
        done: how many micro-batches of all, from the first, to leave out: they are there already.
    """
    stride = micro_batch_size * num_processes
    for first in range((done + process) * micro_batch_size, len(labels), stride):
        indices = list(range(first, first + micro_batch_size))
        chosen = torch.from_numpy(labels[np.minimum(indices, len(labels) - 1)]).to(device)
        noise = SampleNoise(seed, indices, device)
        # Forward passes give the same bits every time, whatever makes attention faster.
        with kernels(device, deterministic=False), autocast(device, precision):
            latents = objective.sample(network, spec, chosen, noise, sampler, num_steps)
        yield latents[: len(labels) - first]


def prepare(network: nn.Module, precision: Precision, compiled: bool) -> nn.Module:
    """Make a frozen generator fast, in place: weights of products in bf16, compiled blocks."""
    if precision is Precision.bf16:
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(torch.bfloat16)
    if compiled:
        compile_parts(compiled_parts(network))
    return network


def network_calls(method: SamplingMethod, num_steps: int) -> int | None:
    """Network calls of a sample (nfe), guidance not counted; None: the sampler decides."""
    if method is SamplingMethod.dopri5:
        return None
    return 2 * num_steps if method is SamplingMethod.heun else num_steps


def random_latents(
    spec: LatentSpec,
    count: int,
    micro_batch_size: int,
    seed: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """Latents without any structure: standard normal, or tokens from their marginal.

    What a generator that has learnt nothing but scale (or frequencies) would give.

    Args:
        spec: shape of the latents.
        count: number of samples.
        micro_batch_size: samples per batch.
        seed: of the noise.
        device: where to put them.
    """
    for first in range(0, count, micro_batch_size):
        noise = SampleNoise(seed, list(range(first, min(first + micro_batch_size, count))), device)
        if spec.discrete:
            frequencies = torch.tensor(spec.token_counts, dtype=torch.float64)
            cumulative = (frequencies / frequencies.sum()).cumsum(0).float().to(device)
            draws = noise.uniform((spec.side, spec.side))
            yield torch.searchsorted(cumulative, draws).clamp(max=spec.codebook_size - 1)
        else:
            yield noise.normal((spec.channels, spec.side, spec.side))
