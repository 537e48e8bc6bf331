"""Runs of profile smoke that nobody disturbs, or that are killed at random, again and again."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from dvc.exceptions import DvcException
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.strictyaml import load

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clones import Clone, make_clone

LOG = "soak.log"
START = "before a stage"
"""What dvc does before it runs the first stage; killed as often as a stage."""
_LATER = 1.3
"""A kill comes up to so many times the length of its stage after its start: also while dvc hashes,
stores and records what the stage made."""
_CHANCE = 0.8
"""That a stage which has not had its share of kills is killed when it starts, so that work gets on.
"""
_REPRO = ("python", "-m", "dvc", "repro")


@dataclass
class Told:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    """By stage that was running."""
    mended: Counter[str] = field(default_factory=Counter)
    """Files of DVC that a kill left damaged, removed as `python -m study doctor` says."""
    resumed: Counter[str] = field(default_factory=Counter)
    """Starts that found a state to go on from, by stage."""

    def left(self, kills: int, stages: list[str]) -> Counter[str]:
        """How many of so many kills each stage has still to get, all about as many."""
        share, rest = divmod(kills, len(stages))
        shares = Counter({name: share + (place < rest) for place, name in enumerate(stages)})
        return shares - self.kills

    def read(self, log: str) -> None:
        """Take in which stages of a `dvc repro` went on from a state."""
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


def undisturbed(folder: Path, *, long: bool = False) -> tuple[dict[str, str], dict[str, float]]:
    """Results of a run that nobody kills, and the seconds of the longest instance of a stage."""
    clone, longest = selected(folder, long=long), dict[str, float]()
    stage, began = START, time.monotonic()
    with _started(clone) as process:
        for name in _followed(clone, process):
            if name or process.poll() is not None:
                seconds = time.monotonic() - began
                longest[stage] = max(seconds, longest.get(stage, 0.0))
                stage, began = name or stage, time.monotonic()
    assert process.returncode == 0, (clone.root / LOG).read_text()
    return results(clone), longest


def disturbed(
    folder: Path, kills: int, seed: int, longest: dict[str, float], *, long: bool = False
) -> tuple[Told, dict[str, str]]:
    """Results of a run that is killed so often, with SIGKILL, at times drawn from a seed.

    A kill hits dvc, or the stage that it runs, or both. Every stage gets its share of them. When
    the pipeline ends before the last kill, one instance of every stage that lacks some is made to
    run again.

    Args:
        folder: where the clone is made.
        kills: how many; below the number of stages, some stages get none.
        seed: of the times and of who is killed.
        longest: seconds of the longest instance of a stage.
        long: whether with loops of seconds.
    """
    clone = selected(folder, long=long)
    clone.environment["STUDY_KEEP_EVERY_S"] = "0"
    rng, told, stages = random.Random(seed), Told(), sorted(longest)
    rng.shuffle(stages)
    while left := told.left(kills, stages):
        with _started(clone) as process:
            victim, killed = _disturb(clone, process, rng, left, longest)
        _wait_for_the_end(clone)
        log, code = (clone.root / LOG).read_text(), process.returncode
        told.read(log)
        if victim is not None:
            told.kills[victim] += 1
            print(f"{told.kills.total()}: {victim}: {killed} killed", flush=True)
        elif code == 0:
            _forget(clone, rng, left)
        else:
            told.mended.update(_mend(clone, log))
    while (done := clone.attempt("python", *_REPRO[1:])).returncode:
        told.mended.update(_mend(clone, done.stdout + done.stderr))
    told.read(done.stderr)
    assert not unfinished(clone)
    return told, results(clone)


def results(clone: Clone) -> dict[str, str]:
    """Whatever a run has made that does not tell times: tables, records, curves, large outputs."""
    report = clone.root / "reports" / "smoke"
    found = {"results.csv": (report / "results.csv").read_text()}
    for file in sorted((report / "metrics").glob("*/*.*")):
        name = str(file.relative_to(report))
        if file.suffix == ".json":
            found[name] = json.dumps(json.loads(file.read_text())["records"])
        elif file.suffix == ".csv":
            found[name] = file.read_text()
    for name, entry in clone.yaml("dvc.lock")["stages"].items():
        if "@smoke" not in name:
            # What a kill has cut off of other profiles does not run again here.
            continue
        outs = {out["path"]: str(out["md5"]) for out in entry["outs"]}
        found |= {path: digest for path, digest in outs.items() if path.startswith("outputs/smoke")}
    return found


def unfinished(clone: Clone) -> list[Path]:
    """What stages leave behind that have not finished."""
    kept = [path for path in (clone.root / "work").glob("*/*") if path.parent.name != "locks"]
    made = (clone.root / name for name in ("outputs", "reports"))
    return kept + [path for folder in made for path in folder.rglob("*.partial")]


def _disturb(
    clone: Clone,
    process: subprocess.Popen[str],
    rng: random.Random,
    left: Counter[str],
    longest: dict[str, float],
) -> tuple[str | None, str]:
    """Let dvc run, and kill once; returns the stage that it hit and who was killed, or None."""
    due, victim = float("inf"), START
    if rng.random() < left[START] / left.total():
        due = time.monotonic() + rng.uniform(0, longest[START])
    for name in _followed(clone, process):
        if name:
            due, victim = float("inf"), name
            if left[name] and rng.random() < _CHANCE:
                due = time.monotonic() + rng.uniform(0, _LATER * longest[name])
        if time.monotonic() < due or process.poll() is not None:
            continue
        dvc = psutil.Process(process.pid)
        stage = [each for each in dvc.children(recursive=True) if "study.stages" in _text(each)]
        kind = rng.choice(("dvc", "both", "stage") if stage else ("dvc",))
        for each in {"dvc": [dvc], "stage": stage, "both": [dvc, *stage]}[kind]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()
        # A stage may have ended just before it was to be killed.
        return (victim, kind) if process.returncode else (None, "")
    return None, ""


def _text(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _followed(clone: Clone, process: subprocess.Popen[str]) -> Iterator[str]:
    """Stages as dvc starts them, and between them, often, nothing; until dvc has ended."""
    seen = 0
    while True:
        ended = process.poll() is not None
        started = re.findall(
            r"^Running stage '(\w+)@", (clone.root / LOG).read_text(), re.MULTILINE
        )
        yield from started[seen:]
        seen = len(started)
        yield ""
        if ended:
            return
        time.sleep(0.02)


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


def _mend(clone: Clone, log: str) -> list[str]:
    """Remove what dvc was writing when it was killed, and now fails to read."""
    damaged = []
    for name, read in ((".dvc/tmp/rwlock", _json), ("dvc.lock", _lock)):
        file = clone.root / name
        try:
            read(file)
        except (ValueError, DvcException):
            file.unlink()
            damaged.append(name)
    assert damaged, log
    return damaged


def _json(file: Path) -> None:
    json.loads(file.read_text())


def _lock(file: Path) -> None:
    load(str(file), COMPILED_LOCKFILE_SCHEMA)


def _forget(clone: Clone, rng: random.Random, left: Counter[str]) -> None:
    """Remove the lock entry of one instance of every stage in `left`, so that it runs again."""
    file = clone.root / "dvc.lock"
    content, grid = yaml.safe_load(file.read_text()), clone.yaml("params/study.yaml")
    for stage, instances in grid.items():
        if left[stage]:
            content["stages"].pop(f"{stage}@{rng.choice(sorted(instances))}", None)
    file.write_text(yaml.safe_dump(content))
    shutil.rmtree(clone.root / ".dvc" / "cache" / "runs", ignore_errors=True)
