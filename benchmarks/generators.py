"""Training and sampling of generators on random latents, with the study's own loops."""

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.timing import Clock
from study import paths
from study.config import (
    BackboneConfig,
    LatentSpec,
    Precision,
    SamplerConfig,
    Scaling,
    TrainGeneratorConfig,
    load_group,
)
from study.config.load import convert, generator_group, load_grid
from study.generators.common import GeneratorObjective
from study.generators.objectives import build_objective
from study.generators.sample import prepare, sample_batches
from study.generators.train import train_generator
from study.latents import LatentCache

CLASSES = 1000
FEATURES = 768
"""Width of DINOv2-B's features, which REPA aligns with."""
TINY = {"width": 32, "depth": 2, "heads": 2, "projection_depth": 1, "projection_width": 16}


class GivenFeatures:
    """A teacher that has nothing to compute."""

    name, channels = "given", FEATURES

    def __init__(self, device: torch.device) -> None:
        self.device, self.features = device, torch.zeros(0)

    def tokens(self, images: Tensor, grid: int) -> Tensor:
        """Random features B N D, the same at every call."""
        if len(self.features) != len(images):
            self.features = torch.randn(len(images), grid**2, FEATURES, device=self.device)
        return self.features


def settings(changes: dict[str, Any]) -> TrainGeneratorConfig:
    """The fast settings of training on a GPU, with changes by name."""
    section = load_grid(paths.PARAMS / "profile" / "smoke.yaml")["train_generator"]
    fast = {
        "steps": 10**6,
        "checkpoints": [1.0],
        "learning_rate": 1e-4,
        "precision": "bf16",
        "compile": True,
        "deterministic": False,
    }
    return convert(TrainGeneratorConfig, section | fast | changes, "train_generator.")


def backbone(name: str, tiny: bool) -> BackboneConfig:
    """A published size; `tiny` keeps its patches only."""
    config = load_group(BackboneConfig, "backbone", name)
    return replace(config, **TINY) if tiny else config


def latent_spec(side: int, tokens: int = 0) -> LatentSpec:
    """Latents of SD-VAE's shape, or tokens."""
    return LatentSpec(
        kind="tokens" if tokens else "gaussian",
        family="vq" if tokens else "kl",
        channels=4,
        side=side,
        factor=16 if tokens else 8,
        num_classes=CLASSES,
        published_scale=0.18215,
        mean=[] if tokens else [0.0] * 4,
        std=[] if tokens else [1.0] * 4,
        token_counts=[1] * tokens,
    )


def random_cache(folder: Path, spec: LatentSpec, images: int) -> LatentCache:
    """A cache of noise, in the format of the study's."""
    rng = np.random.default_rng(0)
    if spec.discrete:
        shape = (images, 2, spec.side, spec.side)
        array = rng.integers(0, spec.codebook_size, shape, dtype=np.int16)
    else:
        shape = (images, 2, 2 * spec.channels, spec.side, spec.side)
        array = rng.standard_normal(shape, dtype=np.float32).astype(np.float16)
    np.save(folder / "latents-00000.npy", array)
    np.save(folder / "labels.npy", rng.integers(0, CLASSES, images))
    index = {"spec": asdict(spec), "shards": [{"file": "latents-00000.npy", "images": images}]}
    (folder / "index.json").write_text(json.dumps(index))
    return LatentCache(folder)


def awake(objective: GeneratorObjective, device: torch.device) -> GeneratorObjective:
    """The objective, building its networks on the device and without zeros in their weights.

    Gates and heads start at zero, and a product with zeros is faster than one with numbers.
    """
    build = objective.build

    def built(backbone: BackboneConfig, spec: LatentSpec) -> nn.Module:
        with torch.device(device):
            network = build(backbone, spec)
        for parameter in network.parameters():
            if not bool(parameter.any()):
                nn.init.normal_(parameter, std=0.02)
        return network

    objective.build = built  # type: ignore[method-assign]
    return objective


def train(
    clock: Clock,
    name: str,
    size: str,
    batch: int,
    side: int = 32,
    tokens: int = 0,
    tiny: bool = False,
    changes: dict[str, Any] | None = None,
) -> dict[str, object]:
    """Time the training loop, data loading included.

    Args:
        clock: how often.
        name: generator.
        size: backbone.
        batch: images per step.
        side: of the latents.
        tokens: size of the codebook; 0: latents.
        tiny: replace the backbone, for a rehearsal.
        changes: of the section train_generator.
    """
    config = settings({"batch_size": batch, **(changes or {})})
    target = GivenFeatures(clock.device)
    objective = awake(build_objective(generator_group(name), target), clock.device)
    with tempfile.TemporaryDirectory() as folder:
        images = 4 * batch
        cache = random_cache(Path(folder), latent_spec(side, tokens), images)
        train_generator(
            Path(folder) / "run",
            objective,
            cache,
            np.zeros((images, 3, 1, 1), np.uint8),
            backbone(size, tiny),
            config,
            Scaling.standardised,
            0,
            clock.device,
            lambda *_: None,
            clock.loop,
        )
    chosen = ("micro_batch_size", "precision", "compile", "cuda_graph", "deterministic")
    used = {key: getattr(config, key) for key in chosen} | {"precision": config.precision.value}
    return clock.result(batch) | {"settings": used}


def sample(
    clock: Clock,
    size: str,
    batch: int,
    sampler: str = "euler_maruyama",
    name: str = "sit",
    side: int = 32,
    calls: int = 250,
    tiny: bool = False,
    changes: dict[str, Any] | None = None,
) -> dict[str, object]:
    """Time a sampler from one network call to the next, and say what all calls would take.

    Args:
        clock: how often.
        size: backbone.
        batch: images at once.
        sampler: by name.
        name: generator.
        side: of the latents.
        calls: network calls of a sample.
        tiny: replace the backbone, for a rehearsal.
        changes: `precision`, `compile`.
    """
    used = {"precision": "bf16", "compile": True, **(changes or {})}
    precision, spec = Precision(used["precision"]), latent_spec(side)
    objective = awake(build_objective(generator_group(name)), clock.device)
    network = objective.build(backbone(size, tiny), spec).eval().requires_grad_(False)
    prepare(network, precision, used["compile"])
    network.register_forward_pre_hook(lambda *_: clock.mark())
    for _ in sample_batches(
        network,
        objective,
        spec,
        np.arange(batch) % CLASSES,
        load_group(SamplerConfig, "sampler", sampler),
        clock.warm_up + clock.repeats + 1,
        batch,
        0,
        clock.device,
        precision=precision,
    ):
        pass
    found = clock.result(batch)
    rate = batch / (float(str(found["ms"])) / 1e3 * calls)
    return found | {
        "images_per_s": rate,
        "calls": calls,
        "settings": used | {"sampler": sampler},
    }
