"""Several processes at work on one stage, each with a device of its own, by torch.distributed.

What a stage computes does not depend on how many there are, up to the order of sums: random numbers
are drawn for the whole batch by all alike, and each takes its rows. A stage started alone is the
only process and the leader; nothing here does anything then. torch is imported inside functions:
not every command needs it.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from study.config.checks import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")

PATIENCE = timedelta(hours=6)
"""How long processes wait for one another: the leader measures and writes alone meanwhile."""

_rank, _world = 0, 1


def rank() -> int:
    """Number of this process, from 0."""
    return _rank


def world() -> int:
    """How many processes there are."""
    return _world


def leader() -> bool:
    """Whether this process is the one that writes, records and speaks."""
    return _rank == 0


def local_rank() -> int:
    """Number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _world > 1 else 0


def launched() -> bool:
    """Whether torchrun has started this process, as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined(method: str | None = None, rank: int = -1, world: int = -1) -> Iterator[None]:
    """Join the other processes, and leave them at the end; alone, nothing.

    Args:
        method: where they meet, as `init_process_group` takes it; None: as torchrun says.
        rank: of this process, with `method`.
        world: how many there are, with `method`.
    """
    global _rank, _world
    if method is None and not launched():
        yield
        return
    import torch
    import torch.distributed as dist

    # Flags and objects travel between hosts, so that no GPU has to be waited for.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, method, PATIENCE, world, rank)
    _rank, _world = dist.get_rank(), dist.get_world_size()
    try:
        yield
        wait()
    finally:
        _rank, _world = 0, 1
        dist.destroy_process_group()


def agreed(flag: bool) -> bool:
    """Whether the flag is up in any process; all must ask."""
    if _world == 1:
        return flag
    import torch
    import torch.distributed as dist

    flags = torch.tensor([int(flag)])
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def wait() -> None:
    """Until all processes are here."""
    agreed(False)


def told(value: Value) -> Value:
    """The leader's value."""
    if _world == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def collected(value: Value) -> list[Value]:
    """The values of all processes in the leader, by rank; nothing in the others."""
    if _world == 1:
        return [value]
    import torch.distributed as dist

    box: list[Any] | None = [None] * _world if leader() else None
    dist.gather_object(value, box)
    return box or []


def total(values: "Tensor") -> "Tensor":
    """Sum over all processes, in place."""
    if _world > 1:
        import torch.distributed as dist

        dist.all_reduce(values)
    return values


def average(tensors: "Sequence[Tensor]") -> None:
    """Mean over all processes of tensors of one type and device, in place."""
    if _world == 1 or not tensors:
        return
    import torch

    flat = total(torch.cat([each.detach().reshape(-1) for each in tensors])).div_(_world)
    parts = flat.split([each.numel() for each in tensors])
    for each, mean in zip(tensors, parts, strict=True):
        each.detach().copy_(mean.view(each.shape))


def whole(count: int) -> int:
    """Rows of the whole batch, of which this process has `count`."""
    return count * _world


def mine(values: "Tensor") -> "Tensor":
    """This process's rows of values for the whole batch."""
    return values if _world == 1 else values.chunk(_world)[_rank]


def rows(count: int, chunk: int | None = None) -> np.ndarray:
    """Numbers of this process's rows of a batch: an equal part of every chunk.

    Args:
        count: rows of the whole batch, a multiple of `chunk`.
        chunk: rows that all processes pass at once, a multiple of their number; None: all.
    """
    each = (chunk or count) // _world
    return np.arange(count).reshape(-1, _world, each)[:, _rank].ravel()


def dealt(values: Iterable[Value]) -> Iterator[Value]:
    """Every value whose turn is this process's."""
    return islice(values, _rank, None, _world)


def turns(own: Iterable[Value], count: int) -> Iterator[Value | None]:
    """This process's values, and None where others still have one of `count` in all."""
    return islice(chain(own, repeat(None)), -(-count // _world))


def require_share(count: int | None, field: str) -> None:
    """Refuse a batch that processes cannot share evenly.

    Raises:
        ConfigError: it is no multiple of their number.
    """
    if count is not None and count % _world:
        rule = f"must be a multiple of the number of processes, {_world}"
        raise ConfigError(f"{field} = {count}: {rule}")
