"""What other micro-batches and processes change in the images themselves: rounding, if anything."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.autoencoders.models import Autoencoder
from study.config import (
    BackboneConfig,
    EvaluationConfig,
    Extractor,
    GeneratorConfig,
    LatentSpec,
    SamplerConfig,
    Scaling,
)
from study.evaluation.features import FeatureExtractor
from study.evaluation.networks.in_domain import InDomainNetwork
from study.evaluation.reference import Reference
from study.evaluation.samples import SampleMeasures
from study.generators.decode import decode_batches
from study.generators.objectives import build_objective
from study.generators.sample import sample_batches
from study.generators.targets import InDomainTarget

CPU = torch.device("cpu")
METHODS = [
    ("dit", "ddpm"),
    ("dit", "ddim"),
    ("sit", "heun"),
    ("sit", "dopri5"),
    ("repa", "euler_maruyama"),
    ("maskgit", "confidence"),
    ("maskgit", "halton"),
]


@pytest.fixture
def sampled(
    generators: dict[str, GeneratorConfig],
    backbone: BackboneConfig,
    token_backbone: BackboneConfig,
    spec: LatentSpec,
    token_spec: LatentSpec,
    kl: Autoencoder,
    vq: Autoencoder,
    target: InDomainTarget,
    make_sampler: Callable[..., SamplerConfig],
) -> Callable[..., Tensor]:
    """Images, uint8, of a network whose outputs have the size of trained ones."""

    def run(
        generator: str, method: str, micro_batch_size: int, count: int = 13, **process: Any
    ) -> Tensor:
        tokens = generator == "maskgit"
        objective = build_objective(generators[generator], target)
        shape = token_spec if tokens else spec
        network = objective.build(token_backbone if tokens else backbone, shape).eval()
        torch.manual_seed(5)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.05)
        batches = sample_batches(
            network,
            objective,
            shape,
            np.arange(count) % 4,
            # At the published 1e-3 an adaptive sampler's steps, hence metrics, know the batch.
            make_sampler(method, cfg_scale=1.5, **({"rtol": 1e-5} if method == "dopri5" else {})),
            10,
            micro_batch_size,
            0,
            CPU,
            **process,
        )
        decoder = vq if tokens else kl
        return torch.cat(list(decode_batches(decoder, shape, Scaling.standardised, batches)))

    return run


@pytest.mark.parametrize(("generator", "method"), METHODS)
def test_another_micro_batch_size_changes_pixels_by_at_most_one_level(
    sampled: Callable[..., Tensor], generator: str, method: str
) -> None:
    whole = sampled(generator, method, 13)
    assert whole.unique().numel() > 20
    for size in (1, 4, 8):
        other = sampled(generator, method, size)
        assert (whole.int() - other.int()).abs().max() <= 1


@pytest.mark.parametrize(("generator", "method"), METHODS)
def test_the_same_micro_batches_give_the_same_bits_in_any_process(
    sampled: Callable[..., Tensor], generator: str, method: str
) -> None:
    # Micro-batches 0 to 3 of 4, 4, 4 and 1 samples, dealt out to three processes.
    parts = sampled(generator, method, 4).split(4)
    expected = [torch.cat([parts[0], parts[3]]), parts[1], parts[2]]
    for process in range(3):
        found = sampled(generator, method, 4, process=process, num_processes=3)
        assert torch.equal(found, expected[process])


@pytest.fixture
def measures(network: InDomainNetwork) -> Callable[[Tensor, int], dict[str, float]]:
    """Everything measured of images that come in batches of a size."""
    # As a trained network's, features differ between images by about their own size.
    torch.manual_seed(6)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    extractor = FeatureExtractor("in_domain", network, CPU)
    source = torch.Generator().manual_seed(0)
    real = torch.randint(256, (200, 3, 16, 16), generator=source, dtype=torch.uint8)
    config = EvaluationConfig(
        extractor=Extractor.in_domain,
        weights=None,
        lpips=None,
        adm_reference=None,
        kid_subset_size=20,
        allow_few_samples=False,
    )
    features = extractor.all([real])
    reference = Reference.of(features, features[:80], {}, [50] * 4, "in_domain")

    def run(images: Tensor, size: int) -> dict[str, float]:
        judge = SampleMeasures(reference, config, CPU)
        found = extractor.all(images.split(size))
        results = [*judge.everything(found), *judge.extrapolated(found)]
        return {result.metric: result.value for result in results}

    return run


@pytest.mark.parametrize(("generator", "method"), METHODS)
def test_another_micro_batch_size_changes_metrics_by_at_most_1e_4(
    sampled: Callable[..., Tensor],
    measures: Callable[[Tensor, int], dict[str, float]],
    generator: str,
    method: str,
) -> None:
    whole, parts = (measures(sampled(generator, method, size, 60), size) for size in (60, 7))
    assert len(whole) == 10
    assert parts == pytest.approx(whole, rel=1e-4)
