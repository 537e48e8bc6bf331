"""Kill the pipeline at random, again and again, until it ends; compare with an undisturbed run.

Also a command: `python tests/faults/soak.py --kills 100` (see `make soak`).
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clones import Clone, make_clone

RESULTS = "reports/smoke/results.csv"
LONGEST_S = 15.0
"""A kill comes after a time up to this; longer than any stage of `smoke`, so that it gets on."""
_REPRO = ("python", "-m", "dvc", "repro")


@dataclass
class Soak:
    """What happened."""

    kills: int = 0
    resumed: int = 0
    """Stages that found a state to go on from."""
    log: list[str] = field(default_factory=list)


def undisturbed(folder: Path) -> bytes:
    """Results of a run that nobody kills."""
    clone = make_clone(folder)
    clone.use("smoke")
    clone.repro()
    return (clone.root / RESULTS).read_bytes()


def disturbed(folder: Path, kills: int, seed: int) -> tuple[Soak, bytes]:
    """Results of a run that is killed so often, with SIGKILL, at times drawn from a seed.

    Half of the kills hit dvc alone, half dvc and the stage that it runs. When the pipeline ends
    before the last kill it is started again from nothing but its cache.
    """
    clone = make_clone(folder)
    clone.environment["STUDY_KEEP_EVERY_S"] = "0.1"
    clone.use("smoke")
    rng, soak = random.Random(seed), Soak()
    while soak.kills < kills:
        with _started(clone, soak) as process:
            try:
                process.wait(rng.uniform(1.0, LONGEST_S))
                _forget(clone, rng)
            except subprocess.TimeoutExpired:
                if rng.random() < 0.5:
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)
                soak.kills += 1
        _wait_for_the_end(clone)
    clone.repro()
    soak.resumed = sum("resumed from" in line for line in soak.log)
    return soak, (clone.root / RESULTS).read_bytes()


def _started(clone: Clone, soak: Soak) -> subprocess.Popen[str]:
    log = clone.root / "soak.log"
    if log.is_file():
        soak.log += log.read_text().splitlines()
    with log.open("w") as stream:
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
    while alive := _alive(clone):
        if time.monotonic() > end:
            raise AssertionError(f"still alive after {limit_s} s: {alive}")
        time.sleep(0.1)


def _alive(clone: Clone) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == clone.root:
                found.append(int(entry.name))
        except OSError:
            continue
    return [number for number in found if number != os.getpid()]


def _forget(clone: Clone, rng: random.Random) -> None:
    """Remove the lock entries of a third of the instances, so that they run again."""
    import yaml

    file = clone.root / "dvc.lock"
    content = yaml.safe_load(file.read_text())
    stages = content["stages"]
    for name in rng.sample(sorted(stages), len(stages) // 3):
        del stages[name]
    file.write_text(yaml.safe_dump(content))
    subprocess.run(["rm", "-rf", str(clone.root / ".dvc" / "cache" / "runs")], check=True)


def main() -> int:
    """Soak for a number of kills or a time, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a").mkdir()
        (folder / "b").mkdir()
        began = time.monotonic()
        expected = undisturbed(folder / "a")
        print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
        soak, found = disturbed(folder / "b", options.kills, options.seed)
        same = found == expected
        print(
            f"{soak.kills} kills, {soak.resumed} stages resumed, "
            f"{time.monotonic() - began:.0f} s: results {'identical' if same else 'DIFFER'}"
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
