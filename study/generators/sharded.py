"""A network in parts, one for each process: weights, gradients, moments of the optimiser (FSDP2).

For networks whose state does not fit one device. `STUDY_SHARD=1` turns it on; states and
checkpoints are those of a whole network, so that a run can go on with or without it. FSDP is
imported inside functions: nothing else needs it.
"""

import os
from typing import Any

import torch
from torch import Tensor, nn

from study import distributed
from study.generators.repa import AlignedTransformer


def wanted() -> bool:
    """Whether there are several processes, and networks shall be shared out among them."""
    return distributed.world() > 1 and os.environ.get("STUDY_SHARD", "0") == "1"


def shard(network: nn.Module, parts: list[nn.Module]) -> None:
    """Share a network out, in place: each of `parts` is put together when it is passed."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for part in (*parts, network):
        fully_shard(part)
    if isinstance(network, AlignedTransformer):
        register_fsdp_forward_method(network, "with_projections")


def local(values: Tensor) -> Tensor:
    """This process's part of a tensor, in the same memory; all of it if it is whole."""
    return values.to_local() if hasattr(values, "to_local") else values  # pyright: ignore


def whole(state: Any) -> Any:
    """A state with all its tensors whole, in the leader; all must ask for it."""
    if not wanted():
        return state
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value) for value in state]
    if not hasattr(state, "full_tensor"):
        return state
    full = state.full_tensor()
    return full.cpu() if distributed.leader() else None


def restore(part: nn.Module | torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a whole state into a network or an optimiser, sharded or not."""
    if not wanted():
        part.load_state_dict(state)
    elif isinstance(part, nn.Module):
        # Not load_state_dict: it takes parts of unequal size for another network's.
        for name, own in part.state_dict().items():
            local(own).copy_(_own_part(state[name], own))
    else:
        parameters = [each for group in part.param_groups for each in group["params"]]
        moments = {
            number: {n: _like(v, parameters[number]) if v.ndim else v for n, v in values.items()}
            for number, values in state["state"].items()
        }
        part.load_state_dict({**state, "state": moments})


def _own_part(value: Tensor, example: Tensor) -> Tensor:
    """This process's rows of a whole tensor, if the example has such: FSDP shares out rows."""
    if not hasattr(example, "to_local"):
        return value
    parts = value.chunk(distributed.world())
    return parts[distributed.rank()] if distributed.rank() < len(parts) else value[:0]


def _like(value: Tensor, example: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    if not isinstance(example, DTensor):
        return value
    own, (mesh, places) = _own_part(value, example), (example.device_mesh, example.placements)
    shape, stride = example.shape, example.stride()
    return DTensor.from_local(own.to(example.device), mesh, places, shape=shape, stride=stride)
