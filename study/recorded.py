"""Steps recorded as CUDA graphs: launched in one go, not kernel by kernel.

At 128 pixels and batch 16 the kernels of an autoencoder's step take a fraction of the time that
Python needs to launch them. A recording runs the same kernels on the same memory, so that results
do not depend on whether a step was recorded (`STUDY_CUDA_GRAPHS=0` turns it off).
"""

import os
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from study import distributed

Variant = TypeVar("Variant", bound=Hashable)
Step = Callable[[Variant, tuple[Tensor, ...]], dict[str, Tensor]]

LIMIT = 128
"""Recordings kept; variants beyond run as they come (an anisotropic arm has hundreds)."""


class Recorded(Generic[Variant]):
    """A training step whose operations and shapes depend on a variant only.

    The first steps of a variant run plainly, which lets libraries choose their algorithms and
    compilers their code; the next is recorded; from then on the recording is replayed. On the CPU,
    and where several processes exchange gradients within a step, every step runs plainly.

    Args:
        step: takes the variant and tensors, changes weights in place, returns named scalars. All it
            reads besides must stay at its place in memory, and it must not wait for the device.
        device: where it runs.
        on: False: nothing is recorded.
        ordinary: steps of a variant that run plainly.
    """

    def __init__(
        self, step: Step[Variant], device: torch.device, on: bool = True, ordinary: int = 1
    ) -> None:
        self.step, self.ordinary = step, ordinary
        wanted = on and os.environ.get("STUDY_CUDA_GRAPHS", "1") != "0"
        self.on = wanted and device.type == "cuda" and distributed.world() == 1
        self.inputs: tuple[Tensor, ...] = ()
        self.seen: Counter[Variant] = Counter()
        self.recordings: dict[Variant, tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}
        if self.on:
            # One stream and one memory pool: no two recordings ever run at once.
            self.stream = torch.cuda.Stream(device)
            self.pool = torch.cuda.graph_pool_handle()

    def __call__(
        self, variant: Variant, *inputs: Tensor, numbers: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Run one step; what it returns is overwritten by the next one.

        Args:
            variant: what determines operations and shapes.
            inputs: tensors of the same shapes at every call.
            numbers: generator on the device that the step draws from, the same object at every
                call; a recording follows its state.
        """
        if not self.on:
            return self.step(variant, inputs)
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = self._run(variant, inputs, numbers)
        current.wait_stream(self.stream)
        return outputs

    def _run(
        self, variant: Variant, inputs: tuple[Tensor, ...], numbers: torch.Generator | None
    ) -> dict[str, Tensor]:
        if variant not in self.recordings:
            if self.seen[variant] < self.ordinary or len(self.recordings) >= LIMIT:
                self.seen[variant] += 1
                return self.step(variant, inputs)
            if not self.inputs:
                self.inputs = tuple(each.clone() for each in inputs)
            self.recordings[variant] = self._record(variant, numbers)
        for place, value in zip(self.inputs, inputs, strict=True):
            place.copy_(value)
        graph, outputs = self.recordings[variant]
        graph.replay()
        return outputs

    def _record(
        self, variant: Variant, numbers: torch.Generator | None
    ) -> tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]:
        graph = torch.cuda.CUDAGraph()
        if numbers is not None:
            graph.register_generator_state(numbers)
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            outputs = self.step(variant, self.inputs)
        return graph, {name: value.detach() for name, value in outputs.items()}


def adam(
    parameters: list[torch.nn.Parameter], rate: float, betas: tuple[float, float]
) -> torch.optim.Adam:
    """Adam whose step can be recorded on a GPU: its learning rate is a tensor there."""
    if parameters[0].device.type != "cuda":
        return torch.optim.Adam(parameters, rate, betas)
    place = torch.tensor(rate, device=parameters[0].device)
    return torch.optim.Adam(parameters, place, betas, fused=True, capturable=True)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step; on a GPU in place, where a recording reads it."""
    for group in optimiser.param_groups:
        device = group["params"][0].device
        if device.type != "cuda":
            group["lr"] = rate
        elif isinstance(group["lr"], Tensor) and group["lr"].device == device:
            group["lr"].fill_(rate)
        else:
            # As an optimiser's state comes from a file.
            group["lr"] = torch.tensor(rate, device=device)


def placed(values: Tensor, device: torch.device) -> Tensor:
    """Values on the device; from pinned memory, so that the host need not wait for a GPU."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
