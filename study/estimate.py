"""What the selected profile will cost on this machine: a few steps of each kind, and arithmetic.

Every kind of instance is timed once, in a process of its own and a temporary root, by the stage's
own function (`study.probe`). Instances of a kind cost the same, since they share the sections of
the profile.
"""

import hashlib
import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from study import paths
from study.config import StudyError, load_grid
from study.schedule import changed, dependencies, with_dependants
from study.tracking import read_metrics
from study.trials import grid_instances, kind_of, make_root, try_instance

REPORT_S = 12.0
"""Rendering a report, which needs results; as on two CPU cores."""


@dataclass(kw_only=True, slots=True)
class Estimate:
    """Seconds and bytes, by instance."""

    profile: str
    digest: str
    """Of the grid, the profile and the machine."""
    seconds: dict[str, float]
    size: dict[str, float]
    done: list[str]
    """Instances that are up to date."""
    dvc_s: float
    """Start of a dvc process."""
    recorded: dict[str, float] = field(default_factory=dict)
    """By stage: predicted over recorded seconds, where instances of this profile have run."""
    needs: dict[str, list[str]] = field(default_factory=dict)

    def left(self) -> dict[str, float]:
        """Seconds of the instances that are to be run."""
        return {name: s for name, s in self.seconds.items() if name not in self.done}

    def hours(self) -> float:
        """Of all that is left, one after the other."""
        return sum(self.left().values()) / 3600

    def wall_s(self, workers: int) -> float:
        """Until the last instance has ended, with so many workers; the longest chain goes first."""
        left = self.left()
        rank: dict[str, float] = {}

        def chain(name: str) -> float:
            if name not in rank:
                after = [chain(o) for o, needs in self.needs.items() if name in needs]
                rank[name] = left.get(name, 0.0) + max(after, default=0.0)
            return rank[name]

        ended = dict.fromkeys((name for name in self.needs if name not in left), 0.0)
        waiting, running, now, idle = set(left), [], 0.0, workers
        while waiting or running:
            ready = [n for n in waiting if all(need in ended for need in self.needs.get(n, []))]
            for name in sorted(ready, key=chain, reverse=True)[:idle]:
                waiting.remove(name)
                idle -= 1
                start = self.dvc_s if workers > 1 else 0.0
                heapq.heappush(running, (now + start + left[name], name))
            now, name = heapq.heappop(running)
            ended[name] = now
            idle += 1
        return now


def digest_of(profile: str) -> str:
    """What an estimate holds for: the grid, the profile's parameters, the machine."""
    import torch

    parts = [paths.GRID.read_bytes(), (paths.PARAMS / "profile" / f"{profile}.yaml").read_bytes()]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
    return hashlib.sha256(b"\n".join([*parts, gpu.encode()])).hexdigest()


def saved(profile: str) -> Estimate | None:
    """The last estimate, if it still holds; what has been done since is looked up."""
    file = _file(profile)
    if not file.is_file():
        return None
    estimate = Estimate(**json.loads(file.read_text()))
    if estimate.digest != digest_of(profile):
        return None
    estimate.done = sorted(set(estimate.seconds) - with_dependants(changed(), dependencies()))
    return estimate


def _file(profile: str) -> Path:
    return paths.ROOT / "work" / "estimate" / f"{profile}.json"


def estimate(say: Callable[[str], None]) -> Estimate:
    """Time every kind of instance of the selected profile.

    Args:
        say: told what is being timed, and what was found.

    Raises:
        StudyError: a kind cannot be timed.
    """
    selected = load_grid(paths.GRID)
    profile = str(selected["profile"])
    began = time.monotonic()
    needs = dependencies()
    dvc_s = time.monotonic() - began
    stale = with_dependants(changed(), needs)
    began = time.monotonic()
    command = [sys.executable, "-m", "study", "check"]
    checked = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    if checked.returncode:
        raise StudyError(checked.stderr.strip().removeprefix("error: "))
    found: dict[tuple[str, ...], dict[str, float]] = {
        ("check_study",): {"seconds": time.monotonic() - began, "bytes": 0.0},
        ("render_report",): {"seconds": REPORT_S, "bytes": 0.0},
    }
    seconds: dict[str, float] = {}
    size: dict[str, float] = {}
    startup: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="study-estimate-") as folder:
        root = make_root(Path(folder))
        for stage, name, item in grid_instances(selected):
            kind = kind_of(stage, item, selected)
            if kind not in found:
                say(f"timing {' '.join(kind)}")
                began = time.monotonic()
                found[kind] = try_instance(root, stage, item, selected)
                spent, one = time.monotonic() - began, found[kind]["seconds"]
                say(f"  {shown(one)} each, timed in {shown(spent)}")
            result = found[kind]
            # What is compiled for the first of a kind is found compiled by the others.
            first = result.pop("cold", result["seconds"])
            seconds[f"{stage}@{name}"] = max(first, result["seconds"])
            size[f"{stage}@{name}"] = result["bytes"]
            startup[f"{stage}@{name}"] = result.get("startup", 0.0)
    made = Estimate(
        profile=profile,
        digest=digest_of(profile),
        seconds=seconds,
        size=size,
        done=sorted(set(seconds) - stale),
        dvc_s=dvc_s,
        recorded=_recorded(profile, seconds, startup),
        needs={name: sorted(some) for name, some in needs.items()},
    )
    _file(profile).parent.mkdir(parents=True, exist_ok=True)
    _file(profile).write_text(json.dumps(asdict(made), indent=1) + "\n")
    return made


def _recorded(
    profile: str, seconds: dict[str, float], startup: dict[str, float]
) -> dict[str, float]:
    """Predicted over recorded time of each stage that has run; start-up is not in it."""
    predicted: dict[str, float] = defaultdict(float)
    measured: dict[str, float] = defaultdict(float)
    for name, value in seconds.items():
        stage, _, instance = name.partition("@")
        file = paths.metrics(profile, stage, instance)
        if file.is_file():
            predicted[stage] += value - startup[name]
            measured[stage] += float(read_metrics(file)["cost"]["seconds"])
    ratios = {stage: predicted[stage] / total for stage, total in measured.items() if total}
    if measured:
        ratios["all"] = sum(predicted.values()) / sum(measured.values())
    return ratios


def table(made: Estimate, workers: int, price: float) -> str:
    """Lines for a terminal."""
    stages = Counter(name.partition("@")[0] for name in made.seconds)
    done = Counter(name.partition("@")[0] for name in made.done)
    left: dict[str, float] = defaultdict(float)
    each: dict[str, list[float]] = defaultdict(list)
    for name, value in made.seconds.items():
        stage = name.partition("@")[0]
        each[stage].append(value)
        left[stage] += value if name not in made.done else 0.0
    titles = f"{'stage':22}{'instances':>10}{'done':>6}{'each':>10}{'left':>10}"
    lines = [f"{titles}{'predicted/recorded':>20}"]
    for stage, count in stages.items():
        ratio = f"{made.recorded[stage]:.2f}" if stage in made.recorded else ""
        lines.append(
            f"{stage:22}{count:>10}{done[stage]:>6}{shown(float(np.mean(each[stage]))):>10}"
            f"{shown(left[stage]):>10}{ratio:>20}"
        )
    if "all" in made.recorded:
        lines.append(f"predicted/recorded, all that has run: {made.recorded['all']:.2f}")
    size = sum(made.size.values())
    lines += [
        f"left: {made.hours():.2f} hours of a worker; {shown(made.wall_s(workers))} with {workers}",
        f"disk: {size / 1e9:.1f} GB of outputs, as much again in DVC's cache unless it links",
        f"price: {made.hours() * price:.2f} at {price:g} an hour of a worker",
    ]
    return "\n".join(lines)


def shown(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
