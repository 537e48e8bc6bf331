"""What a pass over batches has gathered so far, as state from which the pass can go on."""

from dataclasses import fields
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study import distributed
from study.evaluation.features import FeatureExtractor, Features
from study.keeper import State

Part = tuple[Features, np.ndarray | None, Tensor]
"""Of a batch: features, vectors of the second extractor, the images that are kept."""


class Gathered:
    """Features of images that come in batch by batch, and the first images themselves.

    Several processes that take batches in turn `join` what they have in the leader.

    Args:
        extractor: of the features.
        keep: how many images to keep.
        state: of an interrupted pass, to go on with.
        second: another extractor, of whose features only the vectors are kept.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        keep: int,
        state: State | None = None,
        second: FeatureExtractor | None = None,
    ) -> None:
        self.extractor, self.keep, self.second = extractor, keep, second
        self.batches, self.joined = 0, 0
        self.parts: list[Part] = []
        if state:
            self.batches = state["batches"]
            if distributed.leader():
                vectors = unpacked(state["vectors"])
                features = Features(*unpacked(state["features"]))
                self.parts = [(features, vectors[0] if vectors else None, state["shown"])]
                self.joined = 1

    def add(self, images: Tensor) -> None:
        """Add a batch, uint8 B 3 H W."""
        kept = images[: max(0, self.keep - sum(len(part[2]) for part in self.parts))].cpu()
        vectors = self.second(images) if self.second is not None else None
        self.parts.append((self.extractor.everything(images), vectors, kept))
        self.batches += 1

    def join(self) -> None:
        """Bring what all processes have to the leader, in order; all must call it."""
        if distributed.world() > 1:
            new = distributed.collected(self.parts[self.joined :])
            ordered = [part for turn in zip_longest(*new) for part in turn if part is not None]
            before = self.batches - len(self.parts[self.joined :])
            self.parts = [*self.parts[: self.joined], *ordered]
            self.joined, self.batches = len(self.parts), before + len(ordered)

    def state(self) -> State:
        """What `state` takes, after at least one batch; all processes must ask for it."""
        self.join()
        if not distributed.leader():
            return {}
        joined, vectors = Features.joined([part[0] for part in self.parts]), self.second_vectors()
        rows = packed([getattr(joined, item.name) for item in fields(Features)])
        own = {"batches": self.batches, "shown": self.shown, "features": rows}
        return {**own, "vectors": packed([] if vectors is None else [vectors])}

    @property
    def shown(self) -> Tensor:
        """The first images, uint8."""
        kept = [part[2] for part in self.parts]
        return torch.cat(kept)[: self.keep] if kept else torch.zeros(0)

    def second_vectors(self) -> np.ndarray | None:
        """Those of the second extractor, B D; None without one."""
        vectors = [part[1] for part in self.parts if part[1] is not None]
        return np.concatenate(vectors) if vectors else None

    def features(self) -> Features:
        """Those of all images; errors as those of `FeatureExtractor.joined`."""
        return self.extractor.joined([part[0] for part in self.parts])


def packed(value: Any) -> Any:
    """A value, or a list of them, with arrays as what `weights_only` reads."""
    if isinstance(value, np.ndarray):
        return {"array": torch.from_numpy(value)}
    return [packed(each) for each in value] if isinstance(value, list) else value


def unpacked(value: Any, device: torch.device | str = "cpu") -> Any:
    """What `packed` was given, tensors on a device."""
    if isinstance(value, dict):
        return value["array"].numpy()
    if isinstance(value, Tensor):
        return value.to(device)
    return [unpacked(each, device) for each in value] if isinstance(value, list) else value


def sums(part: Any) -> State:
    """Fields of an accumulating dataclass that grow: numbers, tensors, lists of tensors, arrays."""
    values = {item.name: getattr(part, item.name) for item in fields(part)}
    return {k: packed(v) for k, v in values.items() if isinstance(v, int | float | Tensor | list)}


def restore_sums(part: Any, state: State, device: torch.device) -> None:
    """Set the fields that `sums` gave."""
    for name, value in state.items():
        setattr(part, name, unpacked(value, device))
