from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.config import BackboneConfig, GeneratorConfig, LatentSpec, SamplerConfig
from study.generators.common import SampleNoise, guided, times
from study.generators.objectives import build_objective
from study.generators.sample import (
    network_calls,
    random_latents,
    sample_batches,
    sample_labels,
)
from study.generators.targets import InDomainTarget

CPU = torch.device("cpu")
MakeSampler = Callable[..., SamplerConfig]
METHODS = [
    ("dit", "ddpm"),
    ("dit", "ddim"),
    ("sit", "euler"),
    ("sit", "heun"),
    ("repa", "euler_maruyama"),
    ("maskgit", "confidence"),
    ("maskgit", "halton"),
]


@pytest.fixture
def sample(
    generators: dict[str, GeneratorConfig],
    backbone: BackboneConfig,
    token_backbone: BackboneConfig,
    spec: LatentSpec,
    token_spec: LatentSpec,
    target: InDomainTarget,
    awaken: Callable[[nn.Module], nn.Module],
    make_sampler: MakeSampler,
) -> Callable[..., Tensor]:
    """Samples of a network with random weights."""

    def run(
        generator: str,
        method: str,
        count: int = 7,
        micro_batch_size: int = 4,
        seed: int = 0,
        process: int = 0,
        num_processes: int = 1,
        **sampler: Any,
    ) -> Tensor:
        tokens = generator == "maskgit"
        objective = build_objective(generators[generator], target)
        shape = token_spec if tokens else spec
        sampled = awaken(objective.build(token_backbone if tokens else backbone, shape)).eval()
        batches = sample_batches(
            sampled,
            objective,
            shape,
            np.arange(count) % 4,
            make_sampler(method, **sampler),
            3,
            micro_batch_size,
            seed,
            CPU,
            process,
            num_processes,
        )
        return torch.cat(list(batches))

    return run


def same(ours: Tensor, theirs: Tensor) -> None:
    """Tokens exactly; latents up to rounding, which depends on the shape of a matrix product.

    Relative to the largest value: at its first step DiT divides noise by sqrt(alpha_bar) = 0.006.
    """
    if ours.is_floating_point():
        torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=0)
    else:
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("generator", "method"), METHODS)
def test_samples_do_not_depend_on_the_micro_batch(
    sample: Callable[..., Tensor], generator: str, method: str
) -> None:
    whole = sample(generator, method, micro_batch_size=7)
    for size in (1, 3, 20):
        same(sample(generator, method, micro_batch_size=size), whole)


def test_adaptive_samples_depend_on_the_micro_batch_within_their_tolerance(
    sample: Callable[..., Tensor],
) -> None:
    whole = sample("sit", "dopri5", micro_batch_size=7)
    for size in (1, 3, 20):
        error = (sample("sit", "dopri5", micro_batch_size=size) - whole).abs().max()
        assert error < 1e-3 * whole.abs().max()


@pytest.mark.parametrize(("generator", "method"), METHODS)
def test_a_sample_depends_on_its_index_and_the_seed(
    sample: Callable[..., Tensor], generator: str, method: str
) -> None:
    few = sample(generator, method)
    same(sample(generator, method, count=10)[:7], few)
    assert not torch.equal(sample(generator, method, seed=1), few)
    assert not torch.equal(few[0], few[4])


@pytest.mark.parametrize(("generator", "method"), METHODS)
def test_guidance_matters(sample: Callable[..., Tensor], generator: str, method: str) -> None:
    guided_ones = sample(generator, method, cfg_scale=4.0)
    assert not torch.equal(guided_ones, sample(generator, method))


@pytest.mark.parametrize("method", ["confidence", "halton"])
def test_temperature_matters(sample: Callable[..., Tensor], method: str) -> None:
    cold = sample("maskgit", method, temperature=0.01)
    assert not torch.equal(sample("maskgit", method), cold)


@pytest.mark.parametrize(("generator", "method"), [*METHODS, ("sit", "dopri5")])
def test_processes_share_the_work_of_one_bit_for_bit(
    sample: Callable[..., Tensor], generator: str, method: str
) -> None:
    whole = sample(generator, method, count=10).split(4)
    parts = [sample(generator, method, count=10, process=p, num_processes=2) for p in (0, 1)]
    assert torch.equal(parts[0], torch.cat([whole[0], whole[2]]))
    assert torch.equal(parts[1], whole[1])


@pytest.mark.parametrize("count", [1, 4, 7, 8])
def test_every_micro_batch_has_the_full_size(
    count: int,
    as_module: Callable[[Callable[..., Tensor]], nn.Module],
    make_sampler: MakeSampler,
    generators: dict[str, GeneratorConfig],
    spec: LatentSpec,
) -> None:
    sizes: list[int] = []

    def network(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        sizes.append(len(x))
        return torch.zeros_like(x)

    objective, labels = build_objective(generators["sit"]), np.zeros(count, dtype=np.int64)
    sampler = make_sampler("euler")
    batches = sample_batches(as_module(network), objective, spec, labels, sampler, 1, 4, 0, CPU)
    assert sum(map(len, batches)) == count
    assert sizes == [4] * -(-count // 4)


@pytest.mark.parametrize(("generator", "method"), METHODS)
def test_guidance_acts_within_its_interval_only(
    sample: Callable[..., Tensor], generator: str, method: str
) -> None:
    # No sampler calls the network at t in (0, 0.01].
    plain, never = (
        sample(generator, method, cfg_scale=s, cfg_interval=[0.001, 0.01]) for s in (1.0, 4.0)
    )
    assert torch.equal(plain, never)
    late = sample(generator, method, cfg_scale=4.0, cfg_interval=[0.0, 0.9])
    assert not torch.equal(late, plain)
    assert not torch.equal(late, sample(generator, method, cfg_scale=4.0))


def test_guided_channels_come_first_and_the_others_are_those_of_the_class(
    as_module: Callable[[Callable[..., Tensor]], nn.Module],
) -> None:
    network = as_module(lambda x, t, y: times(y.float(), 4).expand(len(x), 4, 2, 2))
    x, t, labels = torch.zeros(1, 4, 2, 2), torch.zeros(1), torch.tensor([1])
    result = guided(network, x, t, labels, null=4, scale=3.0, channels=3)
    assert result[0, :, 0, 0].tolist() == [-5, -5, -5, 1]


def test_guided_channels_matter(sample: Callable[..., Tensor]) -> None:
    for generator, method in (("dit", "ddpm"), ("sit", "euler")):
        first = sample(generator, method, cfg_scale=4.0, cfg_channels=3)
        assert not torch.equal(first, sample(generator, method, cfg_scale=4.0))


@pytest.mark.parametrize("method", ["euler", "heun", "euler_maruyama"])
def test_network_calls_are_counted(
    method: str,
    as_module: Callable[[Callable[..., Tensor]], nn.Module],
    make_sampler: MakeSampler,
    generators: dict[str, GeneratorConfig],
    spec: LatentSpec,
) -> None:
    calls: list[float] = []

    def network(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        calls.append(float(t[0]))
        return torch.zeros_like(x)

    sampler, labels = make_sampler(method), torch.zeros(2).long()
    noise = SampleNoise(0, [0, 1], CPU)
    build_objective(generators["sit"]).sample(as_module(network), spec, labels, noise, sampler, 6)
    assert len(calls) == network_calls(sampler.method, 6)


def test_samplers_give_different_samples(sample: Callable[..., Tensor]) -> None:
    every = [sample("sit", method) for method in ("euler", "heun", "euler_maruyama")]
    assert all(not torch.equal(a, b) for a, b in product(every, every) if a is not b)


def test_guided_is_null_plus_scaled_difference() -> None:
    def network(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return x + times(labels.float() + t, 4)

    x, t, labels = torch.randn(2, 1, 2, 2), torch.tensor([0.1, 0.2]), torch.tensor([1, 2])
    result = guided(network, x, t, labels, null=4, scale=3.0)
    torch.testing.assert_close(result, x + times(t + 4 + 3 * (labels - 4), 4))
    torch.testing.assert_close(guided(network, x, t, labels, 4, 1), network(x, t, labels))


@pytest.mark.parametrize("count", [3, 10, 12, 1000])
@pytest.mark.parametrize("counts", [[1, 1, 1], [5, 3, 2], [10, 0, 1]])
def test_labels_follow_the_class_frequencies(counts: list[int], count: int) -> None:
    labels = sample_labels(counts, count)
    assert len(labels) == count
    exact = np.array(counts) / sum(counts) * count
    assert np.abs(np.bincount(labels, minlength=3) - exact).max() < 1
    assert np.bincount(labels, minlength=3)[np.array(counts) == 0].sum() == 0


def test_any_first_part_of_the_labels_follows_them_too() -> None:
    labels = sample_labels([5, 3, 2], 1000)
    for first in (50, 333, 700):
        found = np.bincount(labels[:first], minlength=3)
        assert np.abs(found - first * np.array([0.5, 0.3, 0.2])).max() <= 2


def test_noise_depends_on_seed_and_index_alone() -> None:
    one, other = SampleNoise(0, [3, 5], CPU), SampleNoise(0, [5], CPU)
    assert torch.equal(one.normal((2, 2))[1], other.normal((2, 2))[0])
    assert torch.equal(one.uniform((4,))[1], other.uniform((4,))[0])
    assert not torch.equal(SampleNoise(1, [5], CPU).normal((2, 2)), other.normal((2, 2)))


def test_random_latents_are_standard_normal(spec: LatentSpec) -> None:
    latents = torch.cat(list(random_latents(spec, 50, 16, 0, CPU)))
    assert latents.shape == (50, 4, 8, 8)
    # 12800 values: four standard errors are 0.035 and 0.025.
    assert float(latents.mean()) == pytest.approx(0, abs=0.035)
    assert float(latents.std()) == pytest.approx(1, abs=0.025)


def test_random_tokens_follow_their_frequencies(token_spec: LatentSpec) -> None:
    tokens = torch.cat(list(random_latents(token_spec, 100, 32, 0, CPU)))
    assert tokens.shape == (100, 8, 8)
    chances = torch.tensor(token_spec.token_counts) / sum(token_spec.token_counts)
    expected = 6400 * chances
    counts = torch.bincount(tokens.flatten(), minlength=16)
    assert counts[0] == 0
    assert ((counts - expected).abs() <= 4 * expected.sqrt()).all()


def test_random_latents_do_not_depend_on_the_micro_batch(
    spec: LatentSpec, token_spec: LatentSpec
) -> None:
    for kind in (spec, token_spec):
        parts = [torch.cat(list(random_latents(kind, 9, size, 0, CPU))) for size in (2, 9)]
        assert torch.equal(*parts)
