"""`python -m study grid` on profile smoke: the results of the sequential run, also after a kill."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from clones import Clone, make_clone, run_stages

RESULTS = "reports/smoke/results.csv"
GENERATORS = ("train_generator@", "evaluate_generator@", "render_report@")
STARTED_WITHIN_S = 240.0


@pytest.fixture
def without_generators(smoke: Clone, tmp_path: Path) -> Clone:
    """A copy of the finished clone in which no generator has run."""
    copy = replace(smoke, root=tmp_path / "copy")
    shutil.copytree(smoke.root, copy.root, symlinks=True)
    lock = copy.yaml("dvc.lock")
    kept = {n: entry for n, entry in lock["stages"].items() if not n.startswith(GENERATORS)}
    (copy.root / "dvc.lock").write_text(yaml.safe_dump(lock | {"stages": kept}, sort_keys=False))
    for folder in ("outputs/smoke/train_generator", ".dvc/cache/runs"):
        shutil.rmtree(copy.root / folder)
    for file in (copy.root / "reports/smoke/metrics").glob("*_generator/*"):
        file.unlink()
    (copy.root / RESULTS).unlink()
    return copy


def kill_one(grid: subprocess.Popen[str], stage: str) -> None:
    """Kill the dvc of the first instance of a stage that the grid runs."""
    began = time.monotonic()
    while time.monotonic() - began < STARTED_WITHIN_S:
        assert grid.poll() is None
        # Processes come and go while they are looked at.
        with suppress(psutil.Error):
            for dvc in psutil.Process(grid.pid).children():
                below = [" ".join(child.cmdline()) for child in dvc.children(recursive=True)]
                if any(f"study.stages.{stage}" in command for command in below):
                    os.kill(dvc.pid, signal.SIGKILL)
                    return
        time.sleep(0.1)
    raise AssertionError("no such stage ran")


@pytest.mark.slow
def test_a_killed_worker_changes_no_result(smoke: Clone, without_generators: Clone) -> None:
    clone = without_generators
    grid = subprocess.Popen(
        [sys.executable, "-m", "study", "grid", "--workers", "4", "--yes"],
        cwd=clone.root,
        env=clone.environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    kill_one(grid, "train_generator")
    printed, _ = grid.communicate(timeout=900)
    assert grid.returncode == 0, printed
    lines = printed.splitlines()
    assert lines[0] == "29 instances: 11 waiting, 18 up to date"
    assert [line.split()[0] for line in lines].count("retry") == 1
    assert lines[-1] == "dvc repro: nothing left to do"
    assert (clone.root / RESULTS).read_bytes() == (smoke.root / RESULTS).read_bytes()


def test_a_finished_grid_runs_nothing(smoke: Clone) -> None:
    printed = smoke.run("python", "-m", "study", "grid", "--yes")
    assert "29 instances: 29 up to date" in printed
    assert "start" not in printed


@pytest.mark.slow
def test_the_estimate_is_near_what_was_recorded(smoke: Clone) -> None:
    printed = smoke.run("python", "-m", "study", "estimate", "--workers", "4", "--price", "2")
    assert "left: 0.00 hours" in printed
    assert printed.count("\ntiming ") == printed.count(" each, timed in ") > 5
    (ratio,) = re.findall(r"all that has run: ([\d.]+)", printed)
    print(f"\nprofile smoke: predicted over recorded {ratio}")
    # A busy machine is not as fast twice.
    assert 0.6 < float(ratio) < 1.6


@pytest.mark.slow
def test_four_workers_give_the_results_of_one_in_less_time(tmp_path: Path) -> None:
    times: dict[str, float] = {}
    results = []
    for name, command in {
        "sequential": ("python", "-m", "dvc", "repro"),
        "grid": ("python", "-m", "study", "grid", "--workers", "4", "--yes"),
    }.items():
        (tmp_path / name).mkdir()
        clone = make_clone(tmp_path / name)
        clone.environment["OMP_NUM_THREADS"] = "1"
        clone.use("smoke")
        began = time.monotonic()
        log = clone.run(*command)
        times[name] = time.monotonic() - began
        results.append((clone.root / RESULTS).read_bytes())
        assert name == "grid" or run_stages(log) == clone.instances()
    print(f"\nprofile smoke: {times['sequential']:.0f} s, with 4 workers {times['grid']:.0f} s")
    assert results[0] == results[1]
    assert times["grid"] < times["sequential"]
