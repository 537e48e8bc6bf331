"""Times of repeated work on a device."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

PROFILED = 2
"""Calls that are profiled after the timed ones."""
SHOWN = 25


@dataclass(kw_only=True, slots=True)
class Clock:
    """Marks of a loop: some to warm up, then those between which time is taken."""

    device: torch.device
    warm_up: int
    repeats: int
    seconds: float
    """After which no repeat is begun, once there are three."""
    profiled: bool = False
    began: float = field(default_factory=time.monotonic)
    ready_s: float | None = None
    """From the beginning to the first timed repeat: building, compiling, warming up."""
    kernels: list[dict[str, float | str]] = field(default_factory=list)
    marks: list[float | torch.cuda.Event] = field(default_factory=list)
    count: int = 0

    def mark(self) -> None:
        """A repeat begins, and the one before ends."""
        if self.count == self.warm_up:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            self.ready_s = time.monotonic() - self.began
        if self.count >= self.warm_up:
            self.marks.append(self._now())
        self.count += 1

    def _now(self) -> float | torch.cuda.Event:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @property
    def done(self) -> bool:
        """Whether there are enough repeats, or no time for more."""
        late = time.monotonic() - self.began > self.seconds and len(self.marks) > 3
        return late or len(self.marks) > self.repeats

    def loop(self, numbers: range) -> Iterator[int]:
        """A range that ends when the clock is done; in the place of a progress bar."""
        for number in numbers:
            self.mark()
            if self.done:
                break
            yield number
        if self.profiled and self.device.type == "cuda":
            torch.cuda.synchronize()
            with profile(activities=[ProfilerActivity.CUDA]) as recorded:
                yield from range(PROFILED)
                torch.cuda.synchronize()
            found = sorted(recorded.key_averages(), key=lambda e: -e.self_device_time_total)
            self.kernels = [
                {
                    "kernel": event.key[:120],
                    "ms": event.self_device_time_total / 1e3 / PROFILED,
                    "calls": event.count / PROFILED,
                }
                for event in found[:SHOWN]
            ]

    def repeat(self, function: Callable[[], object]) -> None:
        """Call a function until the clock is done."""
        for _ in self.loop(range(10**9)):
            function()

    def times(self) -> list[float]:
        """Seconds of each repeat."""
        if self.device.type != "cuda":
            return [b - a for a, b in pairwise(self.marks)]  # type: ignore[operator]
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1e3 for a, b in pairwise(self.marks)]  # type: ignore[union-attr]

    def result(self, images: int) -> dict[str, object]:
        """Rate by the median, and spread; so many images of one repeat."""
        times = self.times()
        typical = median(times)
        result: dict[str, object] = {
            "images_per_s": images / typical,
            "ms": typical * 1e3,
            "ms_lowest": min(times) * 1e3,
            "ms_highest": max(times) * 1e3,
            "repeats": len(times),
            "ready_s": self.ready_s,
        }
        if self.device.type == "cuda":
            result["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if self.kernels:
            result["kernels"] = self.kernels
        return result
