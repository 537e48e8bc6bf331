"""The same seed twice: every number of the chain from images to distances, bit for bit."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from study.autoencoders.models import Autoencoder
from study.autoencoders.monitor import Monitor, Views
from study.autoencoders.train import train_autoencoder
from study.command import device
from study.config import (
    ArmConfig,
    AutoencoderTrainingConfig,
    BackboneConfig,
    EvaluateAutoencoderConfig,
    EvaluationConfig,
    Extractor,
    Family,
    GeneratorConfig,
    Precision,
    SamplerConfig,
    Scaling,
    TrainGeneratorConfig,
    TrainNetworkConfig,
    Weights,
    load_group,
)
from study.evaluation.analysis import analyse
from study.evaluation.comparison import Judges
from study.evaluation.features import FeatureExtractor
from study.evaluation.network_objectives import Classification
from study.evaluation.network_training import train_network
from study.evaluation.networks.in_domain import build_network
from study.evaluation.networks.perceptual import PerceptualDistance
from study.evaluation.reference import Reference
from study.evaluation.samples import SampleMeasures
from study.generators.checkpoints import load_generator
from study.generators.decode import decode_batches
from study.generators.objectives import build_objective
from study.generators.sample import sample_batches, sample_labels
from study.generators.targets import InDomainTarget
from study.generators.train import train_generator
from study.latents import LatentCache, write_cache

EVALUATION = EvaluationConfig(
    extractor=Extractor.in_domain,
    weights=None,
    lpips=None,
    adm_reference=None,
    kid_subset_size=10,
    allow_few_samples=True,
)
SAMPLERS = {"dit": "ddpm", "sit": "heun", "repa": "euler_maruyama", "maskgit": "confidence"}
"""By generator."""
Chain = Callable[[torch.device, str, Precision], str]


@pytest.fixture
def chain(
    tmp_path: Path,
    make_autoencoder: Callable[[Family], Autoencoder],
    make_arm: Callable[..., ArmConfig],
    make_training: Callable[..., AutoencoderTrainingConfig],
    make_run: Callable[..., TrainGeneratorConfig],
    backbone: BackboneConfig,
    images: np.ndarray,
    labels: np.ndarray,
) -> Chain:
    """Everything that is measured on the way from images to distances, as JSON."""
    runs = 0

    def run(place: torch.device, name: str, precision: Precision) -> str:
        nonlocal runs
        runs += 1
        found: list[Any] = []

        def log(step: int, values: dict[str, float]) -> None:
            found.append({"step": step, **values})

        torch.manual_seed(1)
        network = build_network("residual", [4, 8], 8, 4).to(place)
        training = TrainNetworkConfig(steps=3, batch_size=8, learning_rate=1e-3, weight_decay=0.01)
        train_network(Classification(network), images, labels, training, 0, log)
        network.requires_grad_(False)
        perceptual = PerceptualDistance(network)
        tokens = name == "maskgit"
        autoencoder = make_autoencoder(Family.vq if tokens else Family.kl).to(place)
        views = Views(perceptual, monitor=Monitor(images[:4], perceptual, 0.5))
        arm = make_arm(low_resolution_probability=0.25)
        training = make_training(steps=4, precision=precision)
        train_autoencoder(autoencoder, images, training, arm, views, 0, log)
        settings = EvaluateAutoencoderConfig(
            num_images=16, batch_size=6, scales=[0.5], intrinsic_dimension_images=[16]
        )
        extractor = FeatureExtractor("in_domain", network, place)
        features = extractor.all([torch.from_numpy(images)])
        nearest = {"features": 1.0, "pixels": 1.0}
        reference = Reference.of(features, features, nearest, [4] * 4, "in_domain", place)
        judges = Judges(extractor, reference.train, ("perceptual", perceptual))
        found += map(asdict, analyse(autoencoder, images, settings, judges).results)
        folder = tmp_path / str(runs)
        write_cache(folder / "latents", autoencoder, images, labels, 4, 0.5, 8, 100)
        config: GeneratorConfig = load_group(GeneratorConfig, "generator", name)  # type: ignore
        target = InDomainTarget(build_network("patch", [4, 8], 8, 4).to(place).eval())
        objective = build_objective(config, target if name == "repa" else None)
        index = train_generator(
            folder / "generator",
            objective,
            LatentCache(folder / "latents"),
            images,
            replace(backbone, patch_size=1) if tokens else backbone,
            make_run(steps=4, precision=precision),
            Scaling.standardised,
            0,
            place,
            log,
        )
        last = index.checkpoints[-1]
        sampler = replace(load_group(SamplerConfig, "sampler", SAMPLERS[name]), cfg_scale=1.5)
        trained = load_generator(folder / "generator", index, last, config, Weights.ema, place)
        chosen = sample_labels([4] * 4, 24)
        latents = sample_batches(trained, objective, index.spec, chosen, sampler, 3, 16, 0, place)
        pictures = decode_batches(autoencoder, index.spec, index.scaling, latents)
        sampled = extractor.all(pictures)
        found += map(asdict, SampleMeasures(reference, EVALUATION, place).everything(sampled))
        return json.dumps(found)

    return run


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    """The GPU with the deterministic option, which ends with the test."""
    yield device()
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_gives_the_same_numbers(chain: Chain, name: str) -> None:
    first = chain(torch.device("cpu"), name, Precision.fp32)
    torch.rand(3)
    assert chain(torch.device("cpu"), name, Precision.fp32) == first
    assert first.count('"metric"') > 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_gives_the_same_numbers_on_a_gpu(
    chain: Chain, gpu: torch.device, name: str, precision: Precision
) -> None:
    first = chain(gpu, name, precision)
    torch.rand(3, device=gpu)
    assert chain(gpu, name, precision) == first
