"""MLflow's store fails while a stage works: the stage goes on, and what is missing comes later."""

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

import pytest

from study import mlflow_store, paths, tracking
from study.config import Cell
from study.tracking import Run, sync

WORKER = """
import sys
from pathlib import Path
from study import paths, tracking
from study.config import Cell

root = Path(sys.argv[1])
paths.ROOT, paths.GRID = root, root / "study.yaml"
paths.TRACKING_DATABASE = root / "store" / "mlflow.db"
paths.TRACKING_ARTIFACTS = root / "mlartifacts"
tracking.LIVE_AFTER_S = tracking._SHOW_EVERY_S = 0.0
cell = Cell(profile="faults", generator="sit", seed=int(sys.argv[2]))
with tracking.Run("train_generator", cell, {}) as run:
    for step in range(1, 6):
        run.log(step, {"loss": float(step)})
    run.finish()
tracking.sync("faults")
"""
"""A stage that shows itself, and whatever has finished, in a store that may not be there yet."""
Mount = Callable[..., None]
Break = Callable[[], AbstractContextManager[None]]
CELL = Cell(profile="faults", generator="sit", seed=0)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, place in (
        ("ROOT", tmp_path),
        ("GRID", tmp_path / "study.yaml"),
        ("TRACKING_DATABASE", tmp_path / "store" / "mlflow.db"),
        ("TRACKING_ARTIFACTS", tmp_path / "mlartifacts"),
    ):
        monkeypatch.setattr(paths, name, place)
    (tmp_path / "store").mkdir()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("STUDY_COMMIT", "0123456789ab")
    monkeypatch.setattr(mlflow_store, "_BUSY_TIMEOUT_S", 0.2)
    for name in ("LIVE_AFTER_S", "_SHOW_EVERY_S", "_RETRY_AFTER_S"):
        monkeypatch.setattr(tracking, name, 0.0)


@contextmanager
def locked() -> Iterator[None]:
    with closing(sqlite3.connect(paths.TRACKING_DATABASE)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def gone() -> Iterator[None]:
    away = paths.TRACKING_DATABASE.with_name("away")
    paths.TRACKING_DATABASE.rename(away)
    yield
    assert not paths.TRACKING_DATABASE.exists()
    away.rename(paths.TRACKING_DATABASE)


@contextmanager
def unreachable() -> Iterator[None]:
    os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    yield
    del os.environ["MLFLOW_TRACKING_URI"]


@contextmanager
def read_only(mount: Mount, tmp_path: Path) -> Iterator[None]:
    mount(tmp_path / "view", "--bind", "-o", "ro", str(paths.TRACKING_DATABASE.parent))
    real = paths.TRACKING_DATABASE
    paths.TRACKING_DATABASE = tmp_path / "view" / "mlflow.db"
    yield
    paths.TRACKING_DATABASE = real


@contextmanager
def full(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 12)):
            pass
    yield
    filler.unlink()


def losses() -> tuple[str, list[tuple[int, float]]]:
    """State of the only run, and its points."""
    store = mlflow_store.open_store("faults")
    ((run,),) = store.runs().values()
    history = store.client.get_metric_history(run.info.run_id, "loss")
    return run.info.status, sorted((point.step, point.value) for point in history)


def work(broken: Break, *, from_the_start: bool) -> Run:
    """Six points, of which the store is broken for the first two or the third and fourth."""
    with Run("train_generator", CELL, {}) as run:
        if not from_the_start:
            run.log(1, {"loss": 1.0})
            run.log(2, {"loss": 2.0})
        with broken():
            run.log(3, {"loss": 3.0})
            run.log(4, {"loss": 4.0})
        if not from_the_start:
            run.log(5, {"loss": 5.0})
        run.record("fd_in_domain", 1.0, n=1000)
        run.finish()
    return run


def check(broken: Break, capsys: pytest.CaptureFixture[str], *, from_the_start: bool) -> None:
    run = work(broken, from_the_start=from_the_start)
    steps = [3, 4] if from_the_start else [1, 2, 3, 4, 5]
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("warning: MLflow: ") for line in lines), lines
    assert json.loads(run.path(".json").read_text())["records"][0]["value"] == 1.0
    assert run.path(".csv").read_text() == "step,loss\n" + "".join(f"{s},{s}.0\n" for s in steps)
    for _ in range(2):
        sync("faults")
        assert losses() == ("FINISHED", [(step, float(step)) for step in steps])


@pytest.mark.parametrize(
    ("broken", "from_the_start"),
    [(locked, True), (locked, False), (gone, False), (unreachable, True)],
)
def test_what_a_broken_store_missed_is_shown_later_and_once(
    broken: Break, from_the_start: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow_store.open_store("faults")
    check(broken, capsys, from_the_start=from_the_start)


def test_a_store_that_cannot_be_written_is_no_fault_of_the_stage(
    mount: Mount, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow_store.open_store("faults")
    check(lambda: read_only(mount, tmp_path), capsys, from_the_start=True)


def test_a_store_on_a_full_disk_is_no_fault_of_the_stage(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "TRACKING_DATABASE", small_disk / "mlflow.db")
    check(lambda: full(small_disk), capsys, from_the_start=False)


def test_the_run_of_a_killed_stage_is_closed_and_taken_up_again() -> None:
    killed = Run("train_generator", CELL, {})
    killed.log(1, {"loss": 1.0})
    assert losses() == ("RUNNING", [(1, 1.0)])
    lock = paths.lock("train_generator", CELL.instance)
    lock.parent.mkdir(parents=True)
    with lock.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        sync("faults")
        assert losses()[0] == "RUNNING"
    sync("faults")
    assert losses()[0] == "KILLED"
    with Run("train_generator", CELL, {}) as run:
        run._resume(killed._state())
        run.log(1, {"loss": 1.0})
        run.log(2, {"loss": 2.0})
        assert losses() == ("RUNNING", [(1, 1.0), (2, 2.0)])
        run.finish()
    sync("faults")
    assert losses() == ("FINISHED", [(1, 1.0), (2, 2.0)])


@pytest.mark.slow
def test_stages_that_begin_at_once_share_a_store(tmp_path: Path) -> None:
    paths.TRACKING_DATABASE.unlink(missing_ok=True)
    commands = [[sys.executable, "-c", WORKER, str(tmp_path), str(seed)] for seed in range(3)]
    workers = [subprocess.Popen(command) for command in commands]
    assert [worker.wait(300) for worker in workers] == [0, 0, 0]
    sync("faults")
    with closing(sqlite3.connect(paths.TRACKING_DATABASE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store = mlflow_store.open_store("faults")
    assert len(store.runs()) == 3
    for (run,) in store.runs().values():
        history = store.client.get_metric_history(run.info.run_id, "loss")
        assert run.info.status == "FINISHED"
        assert sorted(point.step for point in history) == [1, 2, 3, 4, 5]
