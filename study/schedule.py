"""Runs the selected profile's stage instances side by side, in the order that DVC gives them."""

import fcntl
import fnmatch
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from study import paths
from study.config import ConfigError, StudyError
from study.executors import Executor
from study.lockfile import Recorded

_POLL_S = 0.2
_LOCK_ATTEMPTS = 20
"""Starts that another dvc's lock may refuse, beside the retries."""
_LOCK_WAIT_S = 1.0
_GONE_WITHIN_S = 20.0
"""Time in which a stage has kept its state and ended after its parent."""
_DVC_LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked|rwlock")
_BAD_INPUT = re.compile(r"exited with 2\b")


class State(Enum):
    """Of an instance."""

    waiting = "waiting"
    running = "running"
    done = "done"
    unchanged = "up to date"
    failed = "failed"
    not_run = "not run"


@dataclass(slots=True)
class Job:
    """One instance on its way."""

    name: str
    needs: set[str]
    turn: int = 0
    """Number of the first pattern of `plan` that wants it; smaller ones go first."""
    rank: int = 0
    """Length of the longest chain that waits for it; of one turn the longest goes first."""
    state: State = State.waiting
    attempts: int = 0
    refused: int = 0
    """Starts that a lock of DVC's ended at once."""
    slot: int | None = None
    place: str = ""
    handle: Any = None
    began: float = 0.0
    seconds: float = 0.0
    ready: float = 0.0
    """Not before this time."""
    reason: str = ""
    log_size: int = 0

    @property
    def log(self) -> Path:
        """What its attempts printed."""
        return paths.ROOT / "work" / "grid" / f"{self.name}.log"

    def printed(self) -> str:
        """What the present attempt printed."""
        if not self.log.is_file():
            return ""
        with self.log.open("rb") as stream:
            stream.seek(self.log_size)
            return stream.read().decode(errors="replace")


Report = Callable[[Job], None]


@dataclass(slots=True)
class Schedule:
    """Instances, what they need, and the loop that runs them."""

    jobs: dict[str, Job]
    executor: Executor
    retries: int
    report: Report
    """Called whenever an instance begins or ends."""
    tick: Callable[[Iterable[Job]], None] = lambda jobs: None
    """Called several times a second."""
    refusal: Callable[[str], str] = lambda name: ""
    """Called with an instance that ended well or was stopped: why nothing can go on from it, so
    that it counts as failed; empty where it can."""
    free: list[int] = field(default_factory=list)

    def run(self) -> bool:
        """Run everything that can be run; whether nothing failed.

        On any exception, KeyboardInterrupt and SystemExit among them, what runs is stopped.
        """
        (paths.ROOT / "work" / "grid").mkdir(parents=True, exist_ok=True)
        self.free = list(range(self.executor.workers))
        try:
            while any(j.state in (State.waiting, State.running) for j in self.jobs.values()):
                self._begin()
                self.tick(self.jobs.values())
                time.sleep(_POLL_S)
                for job in self._in(State.running):
                    code = self.executor.poll(job.handle)
                    if code is not None:
                        self._end(job, code)
        except BaseException:
            self.stop()
            raise
        self.tick(self.jobs.values())
        return not self._in(State.failed)

    def stop(self) -> None:
        """End what runs and wait until it has ended."""
        running = self._in(State.running)
        for job in running:
            self.executor.stop(job.handle)
        for job in running:
            _until(lambda job=job: self.executor.poll(job.handle) is not None)
            _until(lambda job=job: not is_running(job.name))
            # It may have written its entry before it was stopped.
            job.state, job.reason = State.failed, self.refusal(job.name) or "stopped"

    def _in(self, state: State) -> list[Job]:
        return [job for job in self.jobs.values() if job.state is state]

    def _begin(self) -> None:
        met = (State.done, State.unchanged)
        now = time.monotonic()
        waiting = [
            job
            for job in self._in(State.waiting)
            if job.ready <= now and all(self.jobs[name].state in met for name in job.needs)
        ]
        for job in sorted(waiting, key=lambda job: (job.turn, -job.rank))[: len(self.free)]:
            job.slot = self.free.pop(0)
            job.place = self.executor.place(job.slot)
            job.log_size = job.log.stat().st_size if job.log.is_file() else 0
            job.began, job.state = time.monotonic(), State.running
            job.handle = self.executor.start(job.name, job.slot, job.log)
            self.report(job)

    def _end(self, job: Job, code: int) -> None:
        assert job.slot is not None
        self.free.append(job.slot)
        job.seconds = time.monotonic() - job.began
        if code == 0:
            job.state, job.reason = State.done, self.refusal(job.name)
            if job.reason:
                self._fail(job)
            self.report(job)
            return
        printed = job.printed()
        mend_rwlock()
        locked = bool(_DVC_LOCKED.search(printed)) and f"Running stage '{job.name}'" not in printed
        if locked and job.refused < _LOCK_ATTEMPTS:
            job.refused += 1
            job.ready, job.state = time.monotonic() + _LOCK_WAIT_S, State.waiting
            return
        job.attempts += 1
        job.reason = last_error(printed) or f"exit code {code}"
        if job.attempts <= self.retries and not _BAD_INPUT.search(printed):
            # A stage whose dvc was killed still holds its lock while it keeps its state.
            _until(lambda: not is_running(job.name))
            job.state = State.waiting
        else:
            self._fail(job)
        self.report(job)

    def _fail(self, job: Job) -> None:
        job.state = State.failed
        for other in self.jobs.values():
            if other.state is State.waiting and job.name in self._upstream(other.name):
                other.state, other.reason = State.not_run, f"needs {job.name}"

    def _upstream(self, name: str) -> set[str]:
        found, left = set(), [name]
        while left:
            new = self.jobs[left.pop()].needs - found
            found |= new
            left.extend(new)
        return found


def plan(
    executor: Executor,
    retries: int,
    report: Report,
    only: Sequence[str] = ("*",),
    replace: bool = False,
) -> Schedule:
    """What is to be run of the selected profile, by DVC's own graph and status.

    Args:
        executor: runs instances.
        retries: of a failed instance.
        report: called whenever an instance begins or ends.
        only: patterns of the shell; what matches none of them and is needed by none that does is
            left out. What an earlier pattern wants goes before what only a later one does.
        replace: let an instance come out otherwise than finished ones that are left out were made
            from, which are then out of date; else it fails.

    Raises:
        ConfigError: a pattern that no instance matches.
    """
    every = dependencies()
    turns = _turns(only, every)
    needs = {name: every[name] for name in every if name in turns}
    stale = with_dependants(changed(() if needs.keys() == every.keys() else needs), needs)

    @cache
    def rank(name: str) -> int:
        return 1 + max((rank(other) for other in needs if name in needs[other]), default=0)

    jobs = {
        name: Job(
            name=name,
            needs=needs[name],
            turn=turns[name],
            rank=rank(name),
            state=State.waiting if name in stale else State.unchanged,
        )
        for name in needs
    }
    schedule = Schedule(jobs, executor, retries, report)
    if not replace:
        schedule.refusal = Recorded(every.keys() - needs).refusal
    return schedule


def _turns(patterns: Sequence[str], needs: dict[str, set[str]]) -> dict[str, int]:
    """Instances that match a pattern or are needed by one that does; the first such pattern."""
    turns: dict[str, int] = {}
    for turn, pattern in enumerate(patterns):
        left = fnmatch.filter(needs, pattern)
        if not left:
            raise ConfigError(f"--only {pattern!r}: must match an instance, such as {min(needs)}")
        while left:
            if (name := left.pop()) not in turns:
                turns[name] = turn
                left.extend(needs[name])
    return turns


def dependencies() -> dict[str, set[str]]:
    """Instances of the selected profile and those that each reads from, by `dvc dag`."""
    graph = _dvc("dag", "--dot")
    needs: dict[str, set[str]] = {
        name: set() for name in re.findall(r'^\s*"([^"]+)";', graph, re.M)
    }
    for upstream, name in re.findall(r'"([^"]+)" -> "([^"]+)"', graph):
        needs.setdefault(upstream, set())
        needs.setdefault(name, set()).add(upstream)
    return needs


def changed(names: Iterable[str] = ()) -> set[str]:
    """Instances, of all or of these, that DVC would run if nothing upstream of them ran.

    By `dvc status` of all, which takes as long as of five by name. It refuses to say it of what
    another dvc is running; those with names may be others, and are asked for by name then.
    """
    wanted = sorted(names)
    if wanted:
        with suppress(_Held):
            return set(json.loads(_dvc("status", "--json", waits=1))).intersection(wanted)
    return set(json.loads(_dvc("status", "--json", *wanted)))


def with_dependants(names: set[str], needs: dict[str, set[str]]) -> set[str]:
    """The instances and all that may change because of them."""
    found = set(names)
    while new := {name for name, upstream in needs.items() if upstream & found} - found:
        found |= new
    return found


def finish() -> str:
    """One plain `dvc repro`, which has nothing left to do.

    Raises:
        StudyError: it ran or restored something, or failed.
    """
    printed = _dvc("repro")
    left = re.findall(r"^Running stage '(.+)':$", printed, re.M)
    if left:
        rule = "must find nothing left to do; did an input change on the way?"
        raise StudyError(f"the last dvc repro ran {', '.join(left[:3])}: {rule}")
    return printed


class _Held(StudyError):
    """Another dvc is at work on what was asked for."""


def _dvc(*arguments: str, waits: int = _LOCK_ATTEMPTS) -> str:
    """Output of a dvc command; what another dvc holds is waited for, so many times."""
    attempt = 0
    while True:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout
        mend_rwlock()
        attempt += 1
        held = bool(_DVC_LOCKED.search(done.stderr))
        if attempt > waits or not held:
            text = last_error(done.stderr) or f"exit code {done.returncode}"
            raise (_Held if held else StudyError)(f"dvc {arguments[0]}: {text}")
        time.sleep(_LOCK_WAIT_S)


def last_error(printed: str) -> str:
    """The line of a log that says what went wrong: the stage's own, else DVC's."""
    lines = [line.strip() for line in printed.splitlines()]
    own = [line for line in lines if line.startswith("error: ")]
    dvc = [line for line in lines if line.startswith("ERROR: ")]
    return (own or dvc or [""])[-1].removeprefix("error: ").removeprefix("ERROR: ")[:300]


def is_running(name: str) -> bool:
    """Whether a process holds the instance's lock."""
    stage, _, instance = name.partition("@")
    file = paths.lock(stage, instance)
    if not file.is_file():
        return False
    with file.open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def mend_rwlock() -> None:
    """Remove DVC's record of readers and writers where a killed dvc left half of it.

    The order in which instances run, and their own locks, keep apart what it would keep apart.
    """
    file = paths.ROOT / ".dvc" / "tmp" / "rwlock"
    for _ in range(2):
        try:
            json.loads(file.read_text())
            return
        except FileNotFoundError:
            return
        except ValueError:
            # Half-written, or only just being written.
            time.sleep(_POLL_S)
    file.unlink(missing_ok=True)


def _until(condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not condition() and time.monotonic() - began < _GONE_WITHIN_S:
        time.sleep(_POLL_S)
