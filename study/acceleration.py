"""How networks run on a device: precision, compilation of their parts, choice of kernels.

It decides how fast a network runs and how its results are rounded, nothing else.
"""

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from study import paths
from study.config import Precision

Network = TypeVar("Network", bound=nn.Module)

ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""Fastest first on Hopper: forward and backward of cuDNN take 0.56 of flash's time at width 72."""
VARIANTS = 128
"""Compiled versions of one piece of code: modules of all kinds share the code that calls them."""

_run = uuid.uuid4().hex


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Context in which convolutions and matrix products run in bf16; for fp32 it does nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bf16)


def settled(network: Network, device: torch.device | str) -> Network:
    """A convolutional network on a device, in the memory layout that is fastest there."""
    if torch.device(device).type == "cpu":
        return network.to(device)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def own_code(run: str | None) -> None:
    """Say whose the code for several shapes is that `compile_parts` makes or finds from now on.

    Args:
        run: its name, the same when it is resumed; None: of a run that will not be.
    """
    global _run
    _run = run or uuid.uuid4().hex


def compile_parts(parts: Iterable[nn.Module], dynamic: bool | None = False) -> None:
    """Compile modules in place, each by itself; equal modules are compiled once for all.

    A network of equal blocks is thus compiled in the time of one. Names of weights stay as they
    are, and copies and states hold nothing compiled. Compiled code is kept below `work/`, where
    other runs find it. Code for several shapes is each run's own (`own_code`): it is made for the
    first of them, which a run may have drawn, and another's may add numbers up in another order.

    Args:
        parts: modules.
        dynamic: False: anew for every shape of the inputs; True: once for all shapes; None: for the
            first shape, then once for all others.
    """
    import torch._dynamo
    import torch.compiler.config

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(paths.ROOT / "work" / "compiled"))
    if dynamic is not False:
        torch.compiler.config.cache_key_tag = _run
    torch._dynamo.config.recompile_limit = VARIANTS  # pyright: ignore[reportAttributeAccessIssue]
    for part in parts:
        part.compile(dynamic=dynamic)


@contextmanager
def plain_code() -> Iterator[None]:
    """Compiled modules run as they are written: for inputs they were not compiled for."""
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def kernels(device: torch.device, deterministic: bool) -> Iterator[None]:
    """Attention by the fastest kernel there is, and other kernels by the process's switches.

    Args:
        device: of the network; nothing changes for a CPU.
        deterministic: leave kernels out whose results vary in the last bits from run to run, such
            as cuDNN's attention backward; False: take them whatever the process's switch says.
    """
    if device.type == "cpu":
        yield
        return
    strict = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(strict and deterministic)
    try:
        with sdpa_kernel(ATTENTION, set_priority=True):
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
