from pathlib import Path

import pytest
import torch
from torch import nn

from study.acceleration import autocast, compile_parts, kernels, own_code
from study.config import Precision

CPU = torch.device("cpu")


class Doubling(nn.Module):
    """Twice its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.weight * x


def test_products_are_rounded_in_bf16_only() -> None:
    x, weight = torch.randn(4, 4), torch.randn(4, 4)
    for precision, dtype in ((Precision.fp32, torch.float32), (Precision.bf16, torch.bfloat16)):
        with autocast(CPU, precision):
            assert (x @ weight).dtype is dtype


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_equal_modules_are_compiled_once_and_keep_their_names() -> None:
    from torch._dynamo.utils import counters

    modules = [Doubling() for _ in range(4)]
    compile_parts(modules)
    torch._dynamo.reset()
    counters.clear()
    for module in modules:
        assert module(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
        assert list(module.state_dict()) == ["weight"]
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_code_for_drawn_shapes_is_found_by_the_resumed_run_and_by_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))

    def found(run: str | None, side: int) -> tuple[int, int]:
        """How much code was found and how much was made, with this side the first that is drawn."""
        torch.compiler.reset()
        counters.clear()
        own_code(run)
        network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4))
        compile_parts([network], dynamic=None)
        for each in (16, side):
            network(torch.ones(2, 3, each, each)).sum().backward()
        counted = counters["inductor"]
        return counted["fxgraph_cache_hit"], counted["fxgraph_cache_miss"]

    # Forward and backward for one shape, and for all others.
    assert found("seed 0", 8) == (0, 4)
    assert found("seed 1", 12) == (0, 4)
    assert found("seed 0", 12) == (4, 0)
    assert found(None, 8) == (0, 4) == found(None, 8)


@pytest.mark.gpu
def test_switches_are_put_back() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with kernels(torch.device("cuda"), deterministic=False):
            assert not torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        with kernels(torch.device("cuda"), deterministic=True):
            assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
