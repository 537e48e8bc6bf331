import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from study import command, paths
from study.config import Cell, ConfigError, StudyError
from study.config.stages import PrepareData
from study.tracking import Run

Main = Callable[[Any, Run], None]


@pytest.fixture
def execute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[tuple[Any, Run]]]:
    """Run a stage's `main` with arguments; gives what it was called with."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(command, "die_with_parent", lambda: None)

    def run(
        main: Main = lambda config, run: None,
        arguments: tuple[str, ...] = ("profile=smoke", "data=shapes"),
        record: bool = True,
    ) -> list[tuple[Any, Run]]:
        calls: list[tuple[Any, Run]] = []

        def recording(config: Any, run: Run) -> None:
            calls.append((config, run))
            main(config, run)

        monkeypatch.setattr(sys, "argv", ["prepare_data", *arguments])
        command.stage(recording, "/anywhere/prepare_data.py", record=record)
        return calls

    return run


def fails_with(error: Exception) -> Main:
    def main(config: Any, run: Run) -> None:
        raise error

    return main


def test_a_stage_gets_its_configuration_by_its_name(execute: Callable[..., Any]) -> None:
    ((config, run),) = execute()
    assert isinstance(config, PrepareData)
    assert config.cell == Cell(profile="smoke", data="shapes")
    assert (run.stage, run.cell) == ("prepare_data", config.cell)


def test_results_are_written_when_main_is_done(execute: Callable[..., Any]) -> None:
    execute(lambda config, run: run.record("train_images", 48))
    file = paths.ROOT / "reports/smoke/metrics/prepare_data/smoke-shapes.json"
    content = json.loads(file.read_text())
    assert content["records"][0]["value"] == 48
    assert content["parameters"]["prepare_data"]["image_size"] == 32


def test_a_stage_that_measures_nothing_writes_nothing(execute: Callable[..., Any]) -> None:
    execute(record=False)
    assert not (paths.ROOT / "reports").exists()


@pytest.mark.parametrize(
    "error", [ConfigError("steps = 0: must be\n at least 1"), FileNotFoundError("x: no such file")]
)
def test_what_a_user_can_cause_is_one_line_and_exit_2(
    execute: Callable[..., Any], error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        execute(fails_with(error))
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {' '.join(str(error).split())}\n"
    assert not (paths.ROOT / "reports").exists()


def test_a_bad_argument_is_one_line_and_exit_2(
    execute: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        execute(arguments=("profile=smoke", "colour=red"))
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: 'colour=red': must be KEY=VALUE")


def test_any_other_error_keeps_its_traceback(execute: Callable[..., Any]) -> None:
    with pytest.raises(RuntimeError, match="step 3: loss = nan"):
        execute(fails_with(RuntimeError("step 3: loss = nan")))
    assert not (paths.ROOT / "reports").exists()


def test_the_device_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr("torch.cuda.is_available", lambda found=available: found)
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (60 << 30, 80 << 30))
        assert command.device().type == name


def test_a_gpu_that_others_have_filled_is_refused(
    execute: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (2 << 30, 80 << 30))
    with pytest.raises(SystemExit) as stopped:
        execute(lambda config, run: command.device())
    assert stopped.value.code == 1
    assert capsys.readouterr().err == (
        "error: free GPU memory = 2.0 GiB: must be at least 10% of 80 GiB; "
        "stop what else uses the GPU: nvidia-smi\n"
    )


def free_disk(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr("study.keeper.shutil.disk_usage", lambda folder: usage)


def test_a_disk_that_is_nearly_full_is_refused_before_the_work(
    execute: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    free_disk(monkeypatch, 5e8)
    with pytest.raises(SystemExit) as stopped:
        execute(fails_with(AssertionError("the work began")))
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: free disk space = 0.5 GB: must be at least 1.0 GB: free some")


def test_whatever_a_full_disk_makes_a_library_raise_is_one_line(
    execute: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main(config: Any, run: Run) -> None:
        free_disk(monkeypatch, 0)
        raise RuntimeError("unexpected pos 768 vs 662")

    with pytest.raises(SystemExit) as stopped:
        execute(main)
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device: free some space" in line


CHILD = """
import os, time
from study.command import die_with_parent
die_with_parent()
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
subprocess.Popen(sys.argv[1:])
time.sleep(60)
"""


def _alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def ends_with_parent(command: list[str], environment: dict[str, str]) -> None:
    arguments = [sys.executable, "-c", PARENT, *command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        for _ in range(100):
            if not _alive(child):
                return
            time.sleep(0.05)
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child outlived its parent by five seconds")


@pytest.mark.skipif(sys.platform != "linux", reason="a feature of the Linux kernel")
def test_a_stage_ends_with_its_parent() -> None:
    ends_with_parent([sys.executable, "-c", CHILD], dict(os.environ))


@pytest.mark.skipif(sys.platform != "linux", reason="a feature of the Linux kernel")
@pytest.mark.parametrize(
    "shell", [[], ["sh", "-c", 'exec "$0" "$@"'], ["sh", "-c", '"$0" "$@"; exit']]
)
def test_a_stage_that_dvc_started_ends_with_it_while_it_still_imports(shell: list[str]) -> None:
    child = "import study.stages, os, time; print(os.getpid(), flush=True); time.sleep(60)"
    ends_with_parent([*shell, sys.executable, "-c", child], os.environ | {"DVC_STAGE": "a"})


def test_a_terminated_stage_ends_with_143() -> None:
    arguments = [sys.executable, "-c", CHILD]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.terminate()
        assert process.wait(10) == 143


def test_a_second_start_of_an_instance_is_refused_and_names_the_first(
    execute: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def start_again(config: Any, run: Run) -> None:
        with pytest.raises(SystemExit) as stopped:
            execute()
        assert stopped.value.code == 2
        text = capsys.readouterr().err
        assert text.startswith("error: prepare_data@smoke-shapes: already run by process ")
        assert f"process {os.getpid()} on " in text

    execute(start_again)
    execute()


def test_the_lock_of_a_stage_that_failed_is_free(execute: Callable[..., Any]) -> None:
    with pytest.raises(SystemExit):
        execute(fails_with(ConfigError("wrong")))
    execute()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b.npy"), "a/b.npy: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied: must"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "lower batch_size"),
        (MemoryError("Unable to allocate 8 TiB"), "out of memory: Unable to allocate 8 TiB: lower"),
        (StudyError("step 3: loss = nan: must be finite"), "step 3: loss = nan: must be finite"),
    ],
)
def test_what_stops_a_run_is_one_line_with_the_cure(
    execute: Callable[..., Any], capsys: pytest.CaptureFixture[str], error: Exception, words: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        execute(fails_with(error))
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_a_tensor_that_does_not_fit_into_memory_is_one_line_with_the_cure(
    execute: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        execute(lambda config, run: torch.empty(1 << 55))
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory: ")
    assert line.endswith(": lower batch_size, or stop what else runs")


def test_a_mistake_of_the_program_keeps_its_traceback(execute: Callable[..., Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        execute(fails_with(ZeroDivisionError()))
    with pytest.raises(OSError, match="odd"):
        execute(fails_with(OSError(errno.EIO, "odd")))
