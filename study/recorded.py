"""Steps recorded as CUDA graphs: launched in one go, not kernel by kernel.

At 128 pixels and batch 16 the kernels of an autoencoder's step take a fraction of the time that
Python needs to launch them. A recording runs the same kernels on the same memory, so that results
do not depend on whether a step was recorded (`STUDY_CUDA_GRAPHS=0` turns it off).
"""

import os
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Variant = TypeVar("Variant", bound=Hashable)
Step = Callable[[Variant, tuple[Tensor, ...]], dict[str, Tensor]]

LIMIT = 128
"""Recordings kept; variants beyond run as they come (an anisotropic arm has hundreds)."""


class Recorded(Generic[Variant]):
    """A training step whose shapes depend on a variant only.

    The first step of a variant runs plainly, which lets libraries choose their algorithms; its
    second is recorded; from then on the recording is replayed. On the CPU every step runs plainly.

    Args:
        step: takes the variant and tensors, changes weights in place, returns named scalars. All it
            reads besides must stay at its place in memory, and it must not wait for the device.
        device: where it runs.
    """

    def __init__(self, step: Step[Variant], device: torch.device) -> None:
        self.step = step
        self.on = device.type == "cuda" and os.environ.get("STUDY_CUDA_GRAPHS", "1") != "0"
        self.inputs: tuple[Tensor, ...] = ()
        self.seen: set[Variant] = set()
        self.recordings: dict[Variant, tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}
        if self.on:
            # One stream and one memory pool: no two recordings ever run at once.
            self.stream = torch.cuda.Stream(device)
            self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, variant: Variant, *inputs: Tensor) -> dict[str, Tensor]:
        """Run one step; what it returns is overwritten by the next one.

        Args:
            variant: what determines shapes and branches.
            inputs: tensors of the same shapes at every call.
        """
        if not self.on:
            return self.step(variant, inputs)
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = self._run(variant, inputs)
        current.wait_stream(self.stream)
        return outputs

    def _run(self, variant: Variant, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        if not self.inputs:
            self.inputs = tuple(each.clone() for each in inputs)
        for place, value in zip(self.inputs, inputs, strict=True):
            place.copy_(value)
        if variant not in self.recordings:
            if variant not in self.seen or len(self.recordings) >= LIMIT:
                self.seen.add(variant)
                return self.step(variant, self.inputs)
            self.recordings[variant] = self._record(variant)
        graph, outputs = self.recordings[variant]
        graph.replay()
        return outputs

    def _record(self, variant: Variant) -> tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]:
        graph = torch.cuda.CUDAGraph()
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
