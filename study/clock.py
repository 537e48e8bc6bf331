"""Times of the steps of a loop, and which of them are like all that follow."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any

from study.recorded import Recorded


@dataclass(slots=True)
class Clock:
    """A loop that marks the time before and after each of its steps, in a progress bar's place.

    On a GPU by events of its own: waiting for it at every step would keep the host from working
    ahead.
    """

    marks: list[Any] = field(default_factory=list)

    def track(self, items: Iterable[Any], *_: Any, **__: Any) -> Iterator[Any]:
        """Yield the items."""
        self._mark()
        for item in items:
            yield item
            self._mark()

    def _mark(self) -> None:
        import torch

        if not torch.cuda.is_available():
            self.marks.append(time.monotonic())
            return
        self.marks.append(torch.cuda.Event(enable_timing=True))
        self.marks[-1].record()

    def times(self) -> list[float]:
        """Seconds of every step."""
        synchronise()
        if any(isinstance(mark, float) for mark in self.marks):
            return [later - earlier for earlier, later in pairwise(self.marks)]
        return [earlier.elapsed_time(later) / 1e3 for earlier, later in pairwise(self.marks)]


@contextmanager
def replays() -> Iterator[list[bool]]:
    """Whether each step from here on is the replay of a recorded one; empty if none is recorded.

    The first steps of a variant, which choose algorithms and are recorded, take many times as long.
    """
    plain, found = Recorded.__call__, []

    def call(self: Recorded, variant: Any, *inputs: Any, **more: Any) -> Any:
        if self.on:
            found.append(variant in self.recordings)
        return plain(self, variant, *inputs, **more)

    Recorded.__call__ = call
    try:
        yield found
    finally:
        Recorded.__call__ = plain


def typical(times: list[float], replayed: list[bool]) -> float:
    """Mean of steps; of replayed ones alone, where a quarter or more of the steps are."""
    chosen = [seconds for seconds, replay in zip(times, replayed, strict=False) if replay]
    return fmean(chosen if len(chosen) >= max(1, len(times) / 4) else times)


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
