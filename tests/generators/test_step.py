"""The fast step learns what the plain one learns."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from study.config import (
    BackboneConfig,
    GeneratorConfig,
    LatentSpec,
    Precision,
    Scaling,
    TrainGeneratorConfig,
)
from study.generators.common import Batch
from study.generators.objectives import build_objective
from study.generators.step import Step, compiled_parts, micro_batches
from study.generators.targets import InDomainTarget
from study.generators.train import train_generator
from study.latents import LatentCache

CPU = torch.device("cpu")
NAMES = ["dit", "sit", "repa", "maskgit"]
MakeRun = Callable[..., TrainGeneratorConfig]
Train = Callable[..., tuple[np.ndarray, Path]]
# The compiler looks at gradients of tensors that have none.
COMPILED = pytest.mark.filterwarnings("default")


@pytest.fixture
def train(
    tmp_path: Path,
    generators: dict[str, GeneratorConfig],
    target: InDomainTarget,
    latent_cache: LatentCache,
    token_cache: LatentCache,
    images: np.ndarray,
    backbone: BackboneConfig,
    token_backbone: BackboneConfig,
) -> Train:
    """Trains by name: the loss of every step, and the folder."""

    def run(name: str, config: TrainGeneratorConfig, device: torch.device = CPU) -> Any:
        target.network.to(device)
        tokens, losses, folder = name == "maskgit", [], tmp_path / f"{name}-{config}"[:200]
        train_generator(
            folder,
            build_objective(generators[name], target),
            token_cache if tokens else latent_cache,
            images,
            token_backbone if tokens else backbone,
            config,
            Scaling.standardised,
            0,
            device,
            lambda _, values: losses.append(values["loss"]),
        )
        return np.array(losses), folder

    return run


@pytest.mark.parametrize("name", NAMES)
def test_a_curve_in_bf16_is_that_of_fp32(train: Train, make_run: MakeRun, name: str) -> None:
    config = make_run(steps=60, batch_size=16, warmup_steps=10)
    exact, _ = train(name, config)
    rounded, _ = train(name, replace(config, precision=Precision.bf16))
    assert not np.array_equal(exact, rounded)
    # bf16 has 8 significant bits, 0.4 %; of a mean over a batch less is left.
    np.testing.assert_allclose(rounded, exact, rtol=0.01)
    assert rounded[-20:].mean() == pytest.approx(exact[-20:].mean(), rel=0.002)


@COMPILED
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_200_fast_steps_have_the_curve_of_plain_ones(
    train: Train, make_run: MakeRun, name: str
) -> None:
    config = make_run(steps=200, batch_size=16, warmup_steps=10)
    plain, ours = train(name, config)
    fast, theirs = train(name, replace(config, compile=True, precision=Precision.bf16))
    assert len(plain) == 100
    np.testing.assert_allclose(fast, plain, rtol=0.01)
    assert fast[-20:].mean() == pytest.approx(plain[-20:].mean(), rel=0.002)
    file = "checkpoint-00000200.safetensors"
    assert load_file(theirs / file).keys() == load_file(ours / file).keys()


@COMPILED
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_compiled_blocks_change_only_the_rounding(
    train: Train, make_run: MakeRun, name: str
) -> None:
    plain, _ = train(name, make_run())
    compiled, _ = train(name, make_run(compile=True))
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)


class Plain:
    """Mean squared output for latents, without random numbers."""

    needs_images = False
    weights: dict[str, float] = {"square": 2.0}  # noqa: RUF012

    def terms(
        self, network: nn.Module, batch: Batch, numbers: torch.Generator
    ) -> dict[str, Tensor]:
        assert batch.latents is not None
        return {"square": network(batch.latents).square().mean()}


def test_micro_batches_sum_to_the_whole(make_run: MakeRun) -> None:
    latents = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    batch = Batch(latents=latents, tokens=None, labels=torch.zeros(8), images=None)
    found = []
    for size in (None, 8, 4, 2):
        network = nn.Linear(3, 2)
        nn.init.constant_(network.weight, 0.5)
        nn.init.zeros_(network.bias)
        config = make_run(micro_batch_size=size)
        step = Step(network, Plain(), config, CPU)  # pyright: ignore[reportArgumentType]
        values = step(batch, torch.Generator(), 1e-3)
        found.append((values, network.weight.detach().clone()))
    for values, weight in found[1:]:
        torch.testing.assert_close(values, found[0][0])
        torch.testing.assert_close(weight, found[0][1])


def test_a_batch_in_parts_loses_nothing() -> None:
    tokens, labels = torch.arange(24).view(8, 3), torch.arange(8)
    batch = Batch(latents=None, tokens=tokens, labels=labels, images=None)
    parts = micro_batches(batch, 2)
    assert len(parts) == 4
    assert torch.equal(torch.cat([part.labels for part in parts]), labels)
    joined = [part.tokens for part in parts if part.tokens is not None]
    assert torch.equal(torch.cat(joined), tokens)
    assert micro_batches(batch, None) == [batch]


def test_blocks_and_the_last_layer_are_compiled(
    generators: dict[str, GeneratorConfig], backbone: BackboneConfig, spec: LatentSpec
) -> None:
    network = build_objective(generators["sit"]).build(backbone, spec)
    assert [type(part).__name__ for part in compiled_parts(network)] == [
        "Block",
        "Block",
        "FinalLayer",
    ]


@COMPILED
@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_step_is_the_step_itself(train: Train, make_run: MakeRun, name: str) -> None:
    config = make_run(steps=12, precision=Precision.bf16)
    ordinary, ours = train(name, config, torch.device("cuda"))
    replayed, theirs = train(name, replace(config, cuda_graph=True), torch.device("cuda"))
    np.testing.assert_allclose(replayed, ordinary, rtol=1e-5)
    file = "checkpoint-00000012.safetensors"
    torch.testing.assert_close(load_file(theirs / file), load_file(ours / file))


def test_tokens_reach_the_blocks_row_by_row(
    generators: dict[str, GeneratorConfig], backbone: BackboneConfig, spec: LatentSpec
) -> None:
    network = build_objective(generators["sit"]).build(backbone, spec)
    layouts = []
    for block in compiled_parts(network)[:-1]:
        block.register_forward_pre_hook(lambda _, given: layouts.append(given[0].is_contiguous()))
    network(torch.randn(2, spec.channels, 8, 8), torch.rand(2), torch.zeros(2).long())
    assert layouts == [True, True]
