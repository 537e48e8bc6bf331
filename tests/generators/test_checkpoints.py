from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from study.config import BackboneConfig, GeneratorConfig, LatentSpec, Scaling, Weights
from study.generators.checkpoints import (
    Checkpoint,
    GeneratorIndex,
    load_generator,
    load_index,
    save_weights,
)
from study.generators.objectives import build_objective
from study.generators.targets import InDomainTarget

POINT = Checkpoint(step=4, images_seen=32, file="ema.safetensors", raw_file="raw.safetensors")


@pytest.fixture
def index(backbone: BackboneConfig, spec: LatentSpec) -> GeneratorIndex:
    return GeneratorIndex(
        backbone=backbone,
        spec=spec,
        scaling=Scaling.fixed,
        features=0,
        target="",
        checkpoints=[POINT],
    )


def test_the_index_round_trips(index: GeneratorIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    assert load_index(tmp_path) == index


def test_a_run_without_index_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index\.json: no such file; made by stage"):
        load_index(tmp_path)


def test_weights_round_trip_as_safetensors(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3, 2).T, "b": torch.tensor(1)}
    save_weights(tmp_path / "w.safetensors", weights)
    loaded = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


@pytest.mark.parametrize("name", ["dit", "sit", "repa", "maskgit"])
def test_a_checkpoint_gives_back_its_network(
    name: str,
    generators: dict[str, GeneratorConfig],
    index: GeneratorIndex,
    token_spec: LatentSpec,
    token_backbone: BackboneConfig,
    target: InDomainTarget,
    awaken: Callable[[nn.Module], nn.Module],
    tmp_path: Path,
) -> None:
    if name == "maskgit":
        index = replace(index, backbone=token_backbone, spec=token_spec)
    objective = build_objective(generators[name], target)
    index.features = getattr(objective, "features", 0)
    saved = awaken(objective.build(index.backbone, index.spec)).state_dict()
    save_weights(tmp_path / POINT.file, saved)
    cpu = torch.device("cpu")
    loaded = load_generator(tmp_path, index, POINT, generators[name], Weights.ema, cpu)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert saved.keys() == loaded.state_dict().keys()
    assert all(torch.equal(saved[key], value) for key, value in loaded.state_dict().items())


def test_raw_weights_are_another_file(
    generators: dict[str, GeneratorConfig],
    index: GeneratorIndex,
    awaken: Callable[[nn.Module], nn.Module],
    tmp_path: Path,
) -> None:
    network = build_objective(generators["sit"]).build(index.backbone, index.spec)
    save_weights(tmp_path / "ema.safetensors", network.state_dict())
    save_weights(tmp_path / "raw.safetensors", awaken(network).state_dict())
    cpu = torch.device("cpu")
    ema, raw = (
        load_generator(tmp_path, index, POINT, generators["sit"], weights, cpu).state_dict()
        for weights in (Weights.ema, Weights.raw)
    )
    assert not torch.equal(ema["final_layer.linear.weight"], raw["final_layer.linear.weight"])


def test_raw_weights_that_were_not_kept_are_named(
    generators: dict[str, GeneratorConfig], index: GeneratorIndex, tmp_path: Path
) -> None:
    point = replace(POINT, raw_file=None)
    with pytest.raises(FileNotFoundError, match=r"weights = raw: needs a run with train_gen"):
        load_generator(tmp_path, index, point, generators["sit"], Weights.raw, torch.device("cpu"))
