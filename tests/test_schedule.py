"""The scheduler on a small pipeline of DVC, and with an executor that runs nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from study import executors, paths
from study.config import ConfigError, StudyError
from study.executors import ClusterJobs, Executor, LocalProcesses
from study.lockfile import Recorded
from study.schedule import (
    Job,
    Schedule,
    State,
    changed,
    finish,
    last_error,
    plan,
    with_dependants,
)

SCRIPT = """\
import sys, time
from pathlib import Path
from study.parent import end_with_dvc

end_with_dvc()  # As stages do.
name = sys.argv[1]
begun = Path(f"begun-{name}")
again = begun.exists()
begun.touch()
if name == "flaky" and not again:
    sys.exit("error: once")
if name == "broken":
    sys.exit("error: always")
if name == "bad":
    print("error: width = 0: must be at least 1", file=sys.stderr)
    sys.exit(2)
while name == "killed" and not again:
    time.sleep(0.05)
machine = Path("machine")
Path(f"{name}.txt").write_text(name + (machine.read_text() if machine.exists() else ""))
"""
NEEDS = {
    "first": [],
    "flaky": ["first"],
    "killed": ["first"],
    "broken": ["first"],
    "bad": ["first"],
    "after_broken": ["broken"],
    "last": ["flaky", "killed"],
}


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of DVC with stages that fail in known ways."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    # Where it is not bash, a shell stays between dvc and the command.
    monkeypatch.setenv("SHELL", "/bin/sh")
    (tmp_path / "named.py").write_text(SCRIPT)
    declare(tmp_path, *NEEDS)
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True
    )
    return tmp_path


def declare(root: Path, *names: str) -> None:
    """Write the pipeline of these stages."""
    lines = ["stages:"]
    for name in names:
        lines += [f"  {name}:", f"    cmd: {sys.executable} named.py {name}", "    deps:"]
        lines += ["      - named.py", *(f"      - {need}.txt" for need in NEEDS[name])]
        lines += ["    outs:", f"      - {name}.txt"]
    (root / "dvc.yaml").write_text("\n".join(lines) + "\n")


def states(schedule: Schedule) -> dict[str, State]:
    return {name: job.state for name, job in schedule.jobs.items()}


def test_faults_are_retried_and_what_needs_a_failed_instance_is_not_run(pipeline: Path) -> None:
    lines: list[tuple[str, State]] = []
    pids: dict[str, int] = {}

    def report(job: Job) -> None:
        lines.append((job.name, job.state))

    def tick(jobs: Iterable[Job]) -> None:
        for job in jobs:
            running = job.name == "killed" and job.state is State.running
            if running and (pipeline / "begun-killed").exists() and job.name not in pids:
                pids[job.name] = job.handle.pid
                os.kill(job.handle.pid, signal.SIGKILL)

    schedule = plan(LocalProcesses(3, []), 1, report)
    assert {name: job.needs for name, job in schedule.jobs.items()} == {
        name: set(needs) for name, needs in NEEDS.items()
    }
    assert schedule.jobs["first"].rank == 3
    schedule.tick = tick
    assert schedule.run() is False
    assert states(schedule) == {
        "first": State.done,
        "flaky": State.done,
        "killed": State.done,
        "broken": State.failed,
        "bad": State.failed,
        "after_broken": State.not_run,
        "last": State.done,
    }
    attempts = {name: job.attempts for name, job in schedule.jobs.items()}
    assert (attempts["flaky"], attempts["killed"], attempts["broken"], attempts["bad"]) == (
        1,
        1,
        2,
        1,
    )
    assert pids
    assert schedule.jobs["broken"].reason == "always"
    assert schedule.jobs["bad"].reason == "width = 0: must be at least 1"
    assert schedule.jobs["after_broken"].reason == "needs broken"
    assert lines.index(("first", State.done)) < lines.index(("flaky", State.running))
    assert lines.index(("killed", State.done)) < lines.index(("last", State.running))

    declare(pipeline, "first", "flaky", "killed", "last")
    again = plan(LocalProcesses(3, []), 1, report)
    assert set(states(again).values()) == {State.unchanged}
    assert again.run() is True
    assert "Running stage" not in finish()


def test_jobs_of_submitit_run_in_order(pipeline: Path) -> None:
    declare(pipeline, "first", "flaky")
    jobs = ClusterJobs(2, pipeline / "work" / "submitit", {"timeout_min": 5}, "local")
    schedule = plan(jobs, 1, lambda job: None)
    assert schedule.run() is True
    assert states(schedule) == {"first": State.done, "flaky": State.done}
    assert schedule.jobs["flaky"].attempts == 1
    assert (pipeline / "flaky.txt").read_text() == "flaky"


def test_of_some_instances_what_they_need_runs_too(pipeline: Path) -> None:
    chosen = plan(LocalProcesses(2, []), 1, lambda job: None, ["fl*", "after_*"])
    assert set(chosen.jobs) == {"first", "flaky", "broken", "after_broken"}
    with pytest.raises(ConfigError, match=r"--only 'x\*': must match an instance, such as after_b"):
        plan(LocalProcesses(2, []), 1, lambda job: None, ["x*"])


def test_of_some_instances_others_may_be_running(pipeline: Path) -> None:
    assert plan(LocalProcesses(1, []), 0, lambda job: None, ["first"]).run() is True
    command = [sys.executable, "-m", "dvc", "repro", "-s", "killed"]
    other = subprocess.Popen(command, cwd=pipeline, start_new_session=True)
    try:
        while not (pipeline / "begun-killed").exists():
            assert other.poll() is None
            time.sleep(0.05)
        schedule = plan(LocalProcesses(1, []), 0, lambda job: None, ["flaky"])
        assert states(schedule) == {"first": State.unchanged, "flaky": State.waiting}
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()


def test_the_state_of_some_is_asked_of_all_and_where_that_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, ...]] = []
    refusal = ""

    def dvc(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(tuple(command[6:]))
        refused = refusal if len(command) == 6 else ""
        return subprocess.CompletedProcess(command, bool(refused), '{"a": [], "c": []}', refused)

    monkeypatch.setattr("study.schedule.subprocess.run", dvc)
    monkeypatch.setattr("study.schedule.mend_rwlock", lambda: None)
    monkeypatch.setattr("study.schedule._LOCK_WAIT_S", 0)
    assert changed(["b", "a"]) == {"a"}
    assert len(asked) == 1
    refusal = "ERROR: 'x' is busy, it is being blocked by: 1"
    assert changed(["c", "a"]) == {"a", "c"}
    assert asked[-1] == ("a", "c")
    refusal, before = "ERROR: dvc.yaml is invalid", len(asked)
    with pytest.raises(StudyError, match=r"dvc status: dvc\.yaml is invalid"):
        changed(["a"])
    assert len(asked) == before + 1


@pytest.fixture
def elsewhere(pipeline: Path) -> Path:
    """All of three stages finished; then their outputs are gone, and the machine is another."""
    for name in ("begun-killed", "begun-flaky"):
        (pipeline / name).touch()
    declare(pipeline, "first", "flaky", "killed")
    assert plan(LocalProcesses(2, []), 0, lambda job: None).run() is True
    shutil.rmtree(pipeline / ".dvc" / "cache")
    (pipeline / "first.txt").unlink()
    (pipeline / "machine").write_text(" on another machine")
    return pipeline


def test_what_others_were_made_from_and_comes_out_otherwise_fails_and_keeps_its_entry(
    elsewhere: Path,
) -> None:
    recorded = (elsewhere / "dvc.lock").read_text()
    for _ in range(2):
        schedule = plan(LocalProcesses(1, []), 1, lambda job: None, ["killed"])
        assert schedule.run() is False
        assert states(schedule) == {"first": State.failed, "killed": State.not_run}
        assert schedule.jobs["first"].attempts == 0
        assert schedule.jobs["first"].reason.startswith(
            "first.txt: other content than in dvc.lock, from the same inputs; 1 finished "
            "instances, such as flaky, were made from the former: "
        )
        assert (elsewhere / "dvc.lock").read_text() == recorded


def test_it_may_be_replaced(elsewhere: Path) -> None:
    schedule = plan(LocalProcesses(1, []), 0, lambda job: None, ["killed"], replace=True)
    assert schedule.run() is True
    assert changed() == {"flaky"}


def test_nothing_is_lost_where_what_read_it_runs_again_too(elsewhere: Path) -> None:
    assert plan(LocalProcesses(1, []), 0, lambda job: None, ["killed", "flaky"]).run() is True
    assert changed() == set()


def test_from_other_inputs_other_content_is_meant(elsewhere: Path) -> None:
    with (elsewhere / "named.py").open("a") as file:
        file.write("# edited\n")
    assert plan(LocalProcesses(1, []), 0, lambda job: None, ["killed"]).run() is True


def test_an_entry_is_put_back_among_those_that_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / ".dvc" / "tmp" / "lock").touch()

    def lock(**made: str) -> str:
        lines = ["schema: '2.0'", "stages:"]
        for name, digest in made.items():
            lines += [f"  {name}:", "    cmd: same"]
            if name.startswith("read"):
                lines += ["    deps:", "    - path: a.txt", f"      md5: {digest}"]
            lines += ["    outs:", f"    - path: {name}.txt", f"      md5: {digest}"]
        return "\n".join(lines) + "\n"

    file = tmp_path / "dvc.lock"
    file.write_text(lock(a="1", b="1", reads="1"))
    recorded = Recorded({"reads", "never_ran"})
    # What is read from it is the same; its metrics, say, are not.
    file.write_text(lock(a="1", b="2", reads="1", c="1"))
    assert recorded.refusal("a") == recorded.refusal("b") == recorded.refusal("c") == ""
    file.write_text(lock(a="2", b="2", reads="1", c="1"))
    assert "such as reads" in recorded.refusal("a")
    assert file.read_text() == lock(a="1", b="2", reads="1", c="1")


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--executor slurm.*") as caught:
        ClusterJobs(1, tmp_path, {"timeout_min": 5})
    assert "\n" not in str(caught.value)


class Nothing(Executor):
    """Jobs that never end until they are stopped."""

    workers = 2

    def __init__(self) -> None:
        self.stopped: list[str] = []

    def place(self, slot: int) -> str:
        return "nowhere"

    def start(self, name: str, slot: int, log: Path) -> str:
        return name

    def poll(self, handle: str) -> int | None:
        return 143 if handle in self.stopped else None

    def stop(self, handle: str) -> None:
        self.stopped.append(handle)


def test_what_an_earlier_pattern_wants_goes_first(
    pipeline: Path,
) -> None:
    chosen = plan(LocalProcesses(1, []), 1, lambda job: None, ["fl*", "last", "after_*"])
    assert {name: job.turn for name, job in chosen.jobs.items()} == {
        "first": 0,
        "flaky": 0,
        "killed": 1,
        "last": 1,
        "broken": 2,
        "after_broken": 2,
    }
    begun: list[str] = []
    jobs = {
        "late": Job("late", set(), turn=1, rank=9),
        "short": Job("short", set(), rank=1),
        "long": Job("long", set(), rank=2),
    }

    def interrupt(some: Iterable[Job]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Schedule(jobs, Nothing(), 1, lambda job: begun.append(job.name), interrupt).run()
    assert begun == ["long", "short"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_runs_is_stopped_with_the_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    executor = Nothing()
    jobs = {name: Job(name, set()) for name in ("stage@a", "stage@b", "stage@c")}

    def interrupt(some: Iterable[Job]) -> None:
        raise kind

    def refusal(name: str) -> str:
        return "other content" if name == "stage@b" else ""

    with pytest.raises(kind):
        Schedule(jobs, executor, 1, lambda job: None, interrupt, refusal).run()
    assert sorted(executor.stopped) == ["stage@a", "stage@b"]
    assert [jobs[name].reason for name in executor.stopped] == ["stopped", "other content"]
    assert jobs["stage@c"].state is State.waiting


SURVIVED = """\
import subprocess, sys, time
from pathlib import Path
if sys.argv[1:] == ["child"]:
    Path("begun").touch()
    while not Path("end").exists():
        time.sleep(0.01)
else:
    subprocess.Popen([sys.executable, __file__, "child"])
    time.sleep(60)
"""


def test_an_instance_runs_as_long_as_a_stage_that_its_dvc_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "survived.py").write_text(SURVIVED)
    monkeypatch.setattr(executors, "command", lambda name: [sys.executable, "survived.py"])
    executor = LocalProcesses(1, [])
    started = executor.start("stage@a", 0, tmp_path / "log")

    def until(condition: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < 30
            time.sleep(0.02)

    until((tmp_path / "begun").exists)
    started.kill()
    assert started.wait() == -signal.SIGKILL
    assert executor.poll(started) is None
    (tmp_path / "end").touch()
    until(lambda: executor.poll(started) == -signal.SIGKILL)


def test_a_worker_sees_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    show = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    monkeypatch.setattr("study.executors.command", lambda name: [sys.executable, "-c", show])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    four = ["4", "6", "7", "9"]
    for gpus, processes, expected in (
        (["4", "6"], 1, ["4", "6", "4"]),
        (four, 2, ["4,6", "7,9", "4,6"]),
        ([], 1, ["4,6"] * 3),
    ):
        found = []
        for slot in range(3):
            log = tmp_path / f"{len(gpus)}-{slot}"
            assert LocalProcesses(3, gpus, processes).start("x", slot, log).wait() == 0
            found.append(log.read_text().strip())
        assert found == expected


def test_workers_with_gpus_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(16)))
    assert LocalProcesses(3, ["0"]).environment(0)["OMP_NUM_THREADS"] == "5"
    assert LocalProcesses(2, ["0", "1", "2", "3"], 2).environment(1)["OMP_NUM_THREADS"] == "4"
    assert LocalProcesses(99, ["0"]).environment(0)["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in LocalProcesses(3, []).environment(0)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert LocalProcesses(3, ["0"]).environment(0)["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("Running stage\nerror: x = 0: must be 1\nERROR: failed to reproduce", "x = 0: must be 1"),
        ("ERROR: Unable to acquire lock", "Unable to acquire lock"),
        ("", ""),
    ],
)
def test_the_line_that_says_what_went_wrong(log: str, expected: str) -> None:
    assert last_error(log) == expected


def test_dependants_of_what_changed_may_change() -> None:
    needs = {"a": set[str](), "b": {"a"}, "c": {"b"}, "d": set[str]()}
    assert with_dependants({"a"}, needs) == {"a", "b", "c"}
    assert with_dependants({"c"}, needs) == {"c"}
