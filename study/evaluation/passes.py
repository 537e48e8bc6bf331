"""What a pass over batches has gathered so far, as state from which the pass can go on."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.evaluation.features import FeatureExtractor, Features
from study.keeper import State


class Gathered:
    """Features of images that come in batch by batch, and the first images themselves.

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
        self.extractor, self.keep, self.batches, self.second = extractor, keep, 0, second
        self.parts: list[Features] = []
        self.vectors: list[np.ndarray] = []
        self.shown = torch.zeros(0)
        if state:
            self.batches, self.shown = state["batches"], state["shown"]
            self.parts = [Features(*unpacked(state["features"]))]
            self.vectors = unpacked(state["vectors"])

    def add(self, images: Tensor) -> None:
        """Add a batch, uint8 B 3 H W."""
        if len(self.shown) < self.keep:
            own = images[: self.keep - len(self.shown)].cpu()
            self.shown = torch.cat([self.shown, own]) if self.batches else own
        self.parts.append(self.extractor.everything(images))
        if self.second is not None:
            self.vectors.append(self.second(images))
        self.batches += 1

    def state(self) -> State:
        """What `state` takes, after at least one batch."""
        joined = Features.joined(self.parts)
        rows = packed([getattr(joined, item.name) for item in fields(Features)])
        own = {"batches": self.batches, "shown": self.shown, "features": rows}
        return {**own, "vectors": packed(self.vectors)}

    def second_vectors(self) -> np.ndarray | None:
        """Those of the second extractor, B D; None without one."""
        return np.concatenate(self.vectors) if self.vectors else None

    def features(self) -> Features:
        """Those of all images; errors as those of `FeatureExtractor.joined`."""
        return self.extractor.joined(self.parts)


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
