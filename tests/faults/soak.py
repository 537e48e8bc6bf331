"""Kill the pipeline at random, again and again, until it ends; compare with an undisturbed run.

Also a command: `python tests/faults/soak.py --kills 100` (see `make soak`).
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clones import Clone, make_clone

RESULTS = "reports/smoke/results.csv"
LOG = "soak.log"
LONGEST_S = 20.0
"""A kill comes after a time up to this; longer than any stage of `smoke`, so that it gets on."""
_REPRO = ("python", "-m", "dvc", "repro")


@dataclass
class Soak:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    """By stage that was running."""
    mended: Counter[str] = field(default_factory=Counter)
    """Files of DVC that a kill left damaged, removed as `python -m study doctor` says."""
    resumed: Counter[str] = field(default_factory=Counter)
    """Starts that found a state to go on from, by stage."""

    def read(self, log: str, *, killed: bool) -> None:
        """Take in what a `dvc repro` printed."""
        started = re.findall(r"^Running stage '(\w+)@", log, re.MULTILINE)
        if killed:
            self.kills[started[-1] if started else "before a stage"] += 1
        self.resumed.update(re.findall(r"resumed from \S*/work/(\w+)/", log))


LONG = {
    "train_network": {"steps": 60},
    "pretrain_autoencoder": {"steps": 40},
    "finetune_autoencoder": {"steps": 40},
    "evaluate_autoencoder": {"batch_size": 1},
    "cache_latents": {"batch_size": 1, "shard_images": 1},
    "train_generator": {"steps": 60},
    "evaluate_generator": {"micro_batch_size": 1, "num_steps": 12, "num_token_steps": 12},
}
"""Parameters of `smoke` with loops of seconds, so that kills hit them, and not only imports."""


def selected(folder: Path, *, long: bool) -> Clone:
    """A clone with profile smoke."""
    clone = make_clone(folder)
    if long:
        file = clone.root / "params" / "profile" / "smoke.yaml"
        content = yaml.safe_load(file.read_text())
        for section, values in LONG.items():
            content[section] |= values
        file.write_text(yaml.safe_dump(content, sort_keys=False))
    clone.use("smoke")
    return clone


def undisturbed(folder: Path, *, long: bool = False) -> bytes:
    """Results of a run that nobody kills."""
    clone = selected(folder, long=long)
    clone.repro()
    return (clone.root / RESULTS).read_bytes()


def disturbed(folder: Path, kills: int, seed: int, *, long: bool = False) -> tuple[Soak, bytes]:
    """Results of a run that is killed so often, with SIGKILL, at times drawn from a seed.

    Half of the kills hit dvc alone, half dvc and the stage that it runs. When the pipeline ends
    before the last kill, one instance of every stage is made to run again.
    """
    clone = selected(folder, long=long)
    clone.environment["STUDY_KEEP_EVERY_S"] = "0"
    rng, soak = random.Random(seed), Soak()
    while soak.kills.total() < kills:
        with _started(clone) as process:
            try:
                code = process.wait(rng.uniform(1.0, LONGEST_S))
            except subprocess.TimeoutExpired:
                code = None
                if rng.random() < 0.5:
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)
        _wait_for_the_end(clone)
        log = (clone.root / LOG).read_text()
        soak.read(log, killed=code is None)
        print(f"{soak.kills.total()}: {log.strip().splitlines()[-1:]}", flush=True)
        if code == 0:
            _forget(clone, rng)
        elif code is not None:
            damaged = _mend(clone)
            assert damaged, log
            soak.mended.update(damaged)
    soak.read(clone.repro(), killed=False)
    return soak, (clone.root / RESULTS).read_bytes()


def _started(clone: Clone) -> subprocess.Popen[str]:
    with (clone.root / LOG).open("w") as stream:
        return subprocess.Popen(
            [sys.executable, *_REPRO[1:]],
            cwd=clone.root,
            env=clone.environment,
            stdout=stream,
            stderr=stream,
            text=True,
            start_new_session=True,
        )


def _wait_for_the_end(clone: Clone, limit_s: float = 30.0) -> None:
    """Wait until no process of the clone is alive: a stage whose dvc died keeps its state first."""
    end = time.monotonic() + limit_s
    while left := alive(clone):
        if time.monotonic() > end:
            raise AssertionError(f"still alive after {limit_s} s: {left}")
        time.sleep(0.1)


def alive(clone: Clone) -> list[int]:
    """Processes that work in the clone."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == clone.root:
                found.append(int(entry.name))
        except OSError:
            continue
    return [number for number in found if number != os.getpid()]


def _mend(clone: Clone) -> list[str]:
    """Remove what dvc was writing when it was killed, and can no longer read."""
    damaged = []
    for name, read in ((".dvc/tmp/rwlock", json.loads), ("dvc.lock", yaml.safe_load)):
        file = clone.root / name
        try:
            read(file.read_text())
        except (ValueError, yaml.YAMLError):
            file.unlink()
            damaged.append(name)
    return damaged


def _forget(clone: Clone, rng: random.Random) -> None:
    """Remove the lock entry of one instance of every stage, so that it runs again."""
    file = clone.root / "dvc.lock"
    content, grid = yaml.safe_load(file.read_text()), clone.yaml("params/study.yaml")
    for stage, instances in grid.items():
        if isinstance(instances, dict):
            content["stages"].pop(f"{stage}@{rng.choice(sorted(instances))}", None)
    file.write_text(yaml.safe_dump(content))
    subprocess.run(["rm", "-rf", str(clone.root / ".dvc" / "cache" / "runs")], check=True)


def main() -> int:
    """Soak for a number of kills or a time, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--long", action="store_true", help="loops of seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a").mkdir()
        (folder / "b").mkdir()
        began = time.monotonic()
        expected = undisturbed(folder / "a", long=options.long)
        print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
        soak, found = disturbed(folder / "b", options.kills, options.seed, long=options.long)
        same = found == expected
        print(f"kills: {dict(soak.kills)}\nresumed: {dict(soak.resumed)}")
        print(f"mended: {dict(soak.mended)}")
        print(
            f"{soak.kills.total()} kills, {soak.resumed.total()} resumed, "
            f"{time.monotonic() - began:.0f} s: results {'identical' if same else 'DIFFER'}"
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
