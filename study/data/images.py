"""What a source hands over: one split as labels and images that have not been read yet."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from study import paths
from study.config import ConfigError, DataConfig

SPLITS = ("train", "validation")
Loader = Callable[[], bytes | np.ndarray]


class Record(NamedTuple):
    """One image that has not been read yet."""

    name: str
    label: int
    load: Loader
    """Gives an encoded picture, or pixels as uint8 of shape (side, side, 3)."""


@dataclass(frozen=True)
class Images:
    """One split of a source; may be iterated more than once."""

    origin: str
    """For messages: folder or data set, and split."""
    class_names: list[str]
    labels: np.ndarray
    """All labels in the order of iteration, so that classes are counted before any image."""
    read: Callable[[], Iterator[tuple[str, Loader]]]

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Record]:
        for label, (name, load) in zip(self.labels, self.read(), strict=True):
            yield Record(name, int(label), load)

    def check_labels(self) -> None:
        """Raise `ConfigError` unless every label names a class."""
        if not len(self):
            raise ConfigError(f"{self.origin}: no images: must have at least one")
        low, high, last = int(self.labels.min()), int(self.labels.max()), len(self.class_names) - 1
        if low < 0 or high > last:
            raise ConfigError(
                f"{self.origin}: labels from {low} to {high}: must be from 0 to {last}, "
                f"one for each class of the training images"
            )


def data_folder(config: DataConfig) -> Path:
    """Folder of a local source.

    Raises:
        ConfigError: there is none.
    """
    assert config.path is not None  # DataConfig requires it
    folder = paths.ROOT / config.path
    if not folder.is_dir():
        raise ConfigError(
            f"{paths.shown(folder)}: no such folder; link your data there or name another path in "
            "params/data"
        )
    return folder


def interleave(labels: np.ndarray) -> np.ndarray:
    """Order that takes one image of each class in turn, so that the first n are balanced."""
    by_class = np.argsort(labels, kind="stable")
    _, start, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(start, counts)
    return np.lexsort((labels, rank))
