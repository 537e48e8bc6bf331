"""Processes of a real checkout: two starts at once, and the end of dvc."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from clones import Clone, make_clone
from killed_runs import alive

pytestmark = pytest.mark.slow

LOG = "started.log"
REFUSED_WITHIN_S = 3.0
GONE_WITHIN_S = 15.0


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A clone with profile smoke, whose pre-training takes minutes."""
    made = make_clone(tmp_path)
    file = made.root / "params" / "profile" / "smoke.yaml"
    content = yaml.safe_load(file.read_text())
    content["pretrain_autoencoder"]["steps"] = 100_000
    file.write_text(yaml.safe_dump(content))
    made.use("smoke")
    made.environment["STUDY_KEEP_EVERY_S"] = "2"
    return made


@contextmanager
def started(clone: Clone, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that leads a group of its own, which ends with the test."""
    with (clone.root / LOG).open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=clone.root,
            env=clone.environment,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def timed(clone: Clone, *arguments: str, code: int = 0) -> tuple[str, float]:
    """What a command printed, and the seconds it took."""
    began = time.monotonic()
    return clone.run("python", *arguments, code=code), time.monotonic() - began


def wait_for(condition: Callable[[], object], limit_s: float) -> float:
    """Seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, condition
        time.sleep(0.002)
    return time.monotonic() - began


def lock(clone: Clone, instance: str) -> str:
    file = clone.root / "work" / "locks" / instance
    return file.read_text() if file.is_file() else ""


def test_the_second_start_is_refused_and_the_first_unharmed(clone: Clone) -> None:
    clone.run("python", "-m", "study.stages.check_study", "profile=smoke")
    command = ("-m", "study.stages.prepare_data", "profile=smoke", "data=shapes")
    with started(clone, *command) as first:
        wait_for(lambda: lock(clone, "prepare_data@smoke-shapes"), 60)
        first.send_signal(signal.SIGSTOP)
        text, seconds = timed(clone, *command, code=2)
        _, start = timed(clone, "-c", "import study.stages.prepare_data")
        first.send_signal(signal.SIGCONT)
        assert first.wait(60) == 0
    print(f"\nthe second start was refused after {seconds:.1f} s, {start:.1f} s of them imports")
    # A machine that is busy with other things imports slowly.
    assert seconds < max(REFUSED_WITHIN_S, 1.5 * start)
    (line,) = text.splitlines()
    assert line.startswith(f"error: prepare_data@smoke-shapes: already run by process {first.pid} ")
    assert (clone.root / "outputs/smoke/prepare_data/smoke-shapes/manifest.json").is_file()


@pytest.mark.parametrize(
    ("kill", "number"),
    [(os.kill, signal.SIGTERM), (os.kill, signal.SIGKILL), (os.killpg, signal.SIGINT)],
    ids=["SIGTERM to dvc", "SIGKILL to dvc", "Ctrl-C"],
)
def test_nothing_outlives_dvc_and_the_work_is_taken_up_again(
    clone: Clone, kill: Callable[[int, int], None], number: int
) -> None:
    instance = "pretrain_autoencoder@smoke-shapes-kl_small-0"
    repro, log = ("-m", "dvc", "repro", instance), clone.root / LOG
    with started(clone, *repro) as dvc:
        wait_for(
            lambda: list((clone.root / "work").glob("pretrain_autoencoder/*/*/state-*.pt")), 240
        )
        kill(dvc.pid, number)
        # What waits for its parent is no longer alive: dvc is this test's child.
        seconds = wait_for(lambda: dvc.poll() is not None and not alive(clone), GONE_WITHIN_S)
    assert "Traceback" not in log.read_text()
    print(f"\nsignal {number}: nothing alive after {seconds:.1f} s")
    with started(clone, *repro) as dvc:
        wait_for(lambda: re.search("resumed from|ERROR|autoencoder: ", log.read_text()), 180)
    assert re.search(r"resumed from \S+/pretrain_autoencoder/", log.read_text()), log.read_text()
