"""A training step asks nothing of the device: no value and no shape that depends on values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from study.config import BackboneConfig, GeneratorConfig, Scaling, TrainGeneratorConfig
from study.generators.objectives import build_objective
from study.generators.targets import InDomainTarget
from study.generators.train import LatentBatches, MovingAverage
from study.latents import LatentCache

NAMES = ["dit", "sit", "repa", "maskgit"]
WAITING = {
    "aten::_local_scalar_dense",  # item(), float(), int(), bool()
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::unique_dim",
    "aten::_unique2",
}


class Listening(TorchDispatchMode):
    """Names operations for which a host would have to wait for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name
        indices = args[1] if name in ("aten::index", "aten::index_put_") else []
        by_mask = any(i is not None and i.dtype == torch.bool for i in indices)
        if name in WAITING or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def step(
    generators: dict[str, GeneratorConfig],
    target: InDomainTarget,
    latent_cache: LatentCache,
    token_cache: LatentCache,
    images: np.ndarray,
    backbone: BackboneConfig,
    token_backbone: BackboneConfig,
    make_run: Callable[..., TrainGeneratorConfig],
) -> Callable[..., Callable[[], None]]:
    """One training step of a generator, made ready on a device."""

    def prepare(name: str, device: torch.device) -> Callable[[], None]:
        tokens, config = name == "maskgit", make_run()
        target.network.to(device)
        objective = build_objective(generators[name], target)
        cache = token_cache if tokens else latent_cache
        network = objective.build(token_backbone if tokens else backbone, cache.spec).to(device)
        average = MovingAverage(network, config)
        optimiser = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
        given = images if objective.needs_images else None
        batches = LatentBatches(cache, Scaling.standardised, given, config, 0, device)

        def run() -> None:
            numbers = torch.Generator(device).manual_seed(0)
            terms = objective.terms(network, batches.draw(0, numbers), numbers)
            torch.stack(list(terms.values())).sum().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            average.update(8, 8)

        return run

    return prepare


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_waits_for_nothing(
    name: str, step: Callable[..., Callable[[], None]]
) -> None:
    run = step(name, torch.device("cpu"))
    with Listening() as listening:
        run()
    assert listening.found == []


def test_what_waits_is_heard() -> None:
    values = torch.tensor([1.0, 2.0])
    with Listening() as listening:
        float(values.sum())
        values[values > 1]
    assert listening.found == ["aten::_local_scalar_dense", "aten::index"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_never_holds_up_the_host(
    name: str, step: Callable[..., Callable[[], None]], tmp_path: Path
) -> None:
    run = step(name, torch.device("cuda"))
    run()  # Kernels are loaded and tables are placed once.
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
