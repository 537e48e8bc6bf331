"""Checkpoints of a generator: weights as safetensors, and an index that describes them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from study.config import BackboneConfig, GeneratorConfig, LatentSpec, Scaling, Weights
from study.generators.objectives import build_objective
from study.generators.repa import REPA
from study.keeper import complete


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """One saved point of a run."""

    step: int
    images_seen: int
    file: str
    """EMA weights."""
    raw_file: str | None
    """The trained weights themselves, where the run keeps them."""


@dataclass(kw_only=True, slots=True)
class GeneratorIndex:
    """What is needed to rebuild and sample a run's networks."""

    backbone: BackboneConfig
    spec: LatentSpec
    scaling: Scaling
    features: int
    """Width of REPA's target features; 0 without."""
    target: str
    """Name of what REPA aligned with; empty without."""
    checkpoints: list[Checkpoint]

    def save(self, folder: Path) -> None:
        """Write the index; a run without one is not finished."""
        folder.mkdir(parents=True, exist_ok=True)
        content = asdict(self) | {"scaling": self.scaling.value}
        (folder / "index.json").write_text(json.dumps(content, indent=1) + "\n")


def load_index(folder: Path) -> GeneratorIndex:
    """Read a run's index.

    Raises:
        FileNotFoundError: the run is not finished.
    """
    file = folder / "index.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; made by stage train_generator")
    content: dict[str, Any] = json.loads(file.read_text())
    return GeneratorIndex(
        backbone=BackboneConfig(**content["backbone"]),
        spec=LatentSpec(**content["spec"]),
        scaling=Scaling(content["scaling"]),
        features=content["features"],
        target=content["target"],
        checkpoints=[Checkpoint(**item) for item in content["checkpoints"]],
    )


def save_weights(file: Path, weights: dict[str, Tensor]) -> None:
    """Write tensors as safetensors; the file is whole or not there."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    with complete(file) as partial:
        save_file(tensors, partial)


def load_generator(
    folder: Path,
    index: GeneratorIndex,
    checkpoint: Checkpoint,
    config: GeneratorConfig,
    weights: Weights,
    device: torch.device,
) -> nn.Module:
    """The network of one checkpoint with its EMA or trained weights, frozen, in eval mode.

    Raises:
        FileNotFoundError: the run did not keep its trained weights.
    """
    objective = build_objective(config)
    file = checkpoint.file if weights is Weights.ema else checkpoint.raw_file
    if file is None:
        rule = "needs a run with train_generator.raw_weights"
        raise FileNotFoundError(f"{folder}: weights = raw: {rule}")
    if isinstance(objective, REPA):
        objective.features = index.features
    network = objective.build(index.backbone, index.spec)
    network.load_state_dict(load_file(folder / file))
    return network.to(device).eval().requires_grad_(False)
