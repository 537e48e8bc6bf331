import csv
import json
import math
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from study import mlflow_store, paths, tracking
from study.config import Cell, ConfigError
from study.tracking import Run, commit, read_metrics, sync

if TYPE_CHECKING:
    from mlflow.entities import Run as StoredRun


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one store for all tests lives: creating it takes seconds. Profiles keep tests apart."""
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture(autouse=True)
def places(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "GRID", tmp_path / "study.yaml")
    monkeypatch.setattr(paths, "TRACKING_DATABASE", database / "mlflow.db")
    monkeypatch.setattr(paths, "TRACKING_ARTIFACTS", database / "mlartifacts")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("STUDY_COMMIT", "0123456789ab")


def make(profile: str, value: float = 1.0, seed: int = 0) -> Run:
    """A finished generator instance."""
    cell = Cell(profile=profile, data="shapes", arm="eq", seed=seed, generator="sit")
    run = Run("train_generator", cell, {"cell": cell, "train_generator": {"steps": 600}})
    run.family = "kl"
    run.record("fd_in_domain", value, step=600, n=1000)
    for step in range(1, 601):
        run.log(step, {"loss": 1 / step})
    run.finish()
    return run


def stored(profile: str) -> "list[StoredRun]":
    runs = mlflow_store.open_store(profile).runs()
    return [run for some in runs.values() for run in some]


def test_the_metrics_file_holds_what_was_recorded(tmp_path: Path):
    run = make("whole")
    content = read_metrics(run.path(".json"))
    assert content["cell"]["arm"] == "eq"
    assert content["records"][0]["value"] == 1.0
    assert content["environment"]["commit"] == "0123456789ab"
    assert "tracking_run" not in content
    assert not list(tmp_path.rglob("*.partial"))
    with run.path(".csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)][-1] == "600"


def test_start_up_and_compilation_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    cost = read_metrics(make("uncompiled").path(".json"))["cost"]
    assert cost["startup_seconds"] > 0
    compiler = SimpleNamespace(
        compilation_time_metrics={
            "_compile.compile_inner": [2.0, 0.5],
            "backward._backward_impl": [1.0],
            "inside both": [9.0],
        }
    )
    monkeypatch.setitem(sys.modules, "torch._dynamo.utils", compiler)
    assert read_metrics(make("compiled").path(".json"))["cost"]["compile_seconds"] == 3.5


def test_torch_tells_how_long_it_compiled():
    show = """
import torch, torch._dynamo.utils as utils
from study.tracking import _COMPILED
network = torch.nn.Linear(4, 4)
network.compile(backend="aot_eager")
network(torch.ones(2, 4)).sum().backward()
print(all(sum(utils.compilation_time_metrics[name]) > 0 for name in _COMPILED))
"""
    found = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True)
    assert found.stdout.strip() == "True", found.stderr


def test_pictures_and_tables_stand_beside_the_metrics_file_by_name():
    cell = Cell(profile="named", data="shapes", autoencoder="vae", arm="eq", seed=1)
    run = Run("evaluate_autoencoder", cell, {})
    images = np.zeros((3, 3, 4, 4), dtype=np.uint8)
    run.picture(images, 2)
    run.picture(images, 3, "latents")
    run.table([{"a": 1, "b": 0.5}], ["a", "b"], "spectra")
    run.table([], ["a", "b"], "nothing")
    run.finish()
    files = {path.name: path for path in run.path(".json").parent.iterdir()}
    instance = "named-shapes-vae-eq-1"
    suffixes = (".json", ".png", "-latents.png", "-spectra.csv", "-nothing.csv")
    assert set(files) == {f"{instance}{suffix}" for suffix in suffixes}
    assert files[f"{instance}-spectra.csv"].read_text() == "a,b\n1,0.5\n"
    assert files[f"{instance}-nothing.csv"].read_text() == "a,b\n"
    for suffix, size in ((".png", (8, 8)), ("-latents.png", (12, 4))):
        with Image.open(files[instance + suffix]) as picture:
            assert picture.size == size


def test_an_interrupted_write_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch):
    path = make("interrupted").path(".json")
    before = path.read_text()

    def full(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        tracking.write_text(path, "{}")
    assert path.read_text() == before


@pytest.mark.parametrize("text", ["{", "[]", '{"stage": 1}'])
def test_a_damaged_metrics_file_is_one_line(tmp_path: Path, text: str):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"a\.json: (not a metrics file|missing keys)"):
        read_metrics(path)


def test_the_commit_can_be_given_and_may_be_unknown(monkeypatch: pytest.MonkeyPatch):
    assert commit() == "0123456789ab"
    monkeypatch.delenv("STUDY_COMMIT")
    assert commit() == "unknown"


def test_a_run_shows_its_cell_results_and_curve():
    run = make("content", 2.5)
    (paths.ROOT / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n"
        f"  train_generator@{run.cell.instance}:\n"
        "    deps:\n    - {path: outputs/latents, md5: abc.dir, size: 3}\n"
    )
    run.path(".png").write_bytes(b"picture")
    sync("content")
    [shown] = stored("content")
    assert shown.info.run_name == "sit eq seed 0 | train_generator"
    assert shown.data.tags["dvc.stage"] == f"train_generator@{run.cell.instance}"
    assert shown.info.status == "FINISHED"
    assert shown.data.metrics["fd_in_domain_1000"] == 2.5
    assert shown.data.metrics["loss"] == 1 / 600
    assert shown.data.params["train_generator.steps"] == "600"
    expected = {
        "arm": "eq",
        "seed": "0",
        "generator": "sit",
        "family": "kl",
        "profile": "content",
        "commit": "0123456789ab",
        "input.outputs/latents": "abc.dir",
    }
    assert expected.items() <= shown.data.tags.items()
    client = mlflow_store.open_store("content").client
    assert len(client.get_metric_history(shown.info.run_id, "loss")) == 200
    assert [f.path for f in client.list_artifacts(shown.info.run_id)] == [run.path(".png").name]


def test_repeating_sync_changes_nothing():
    for seed in (0, 1):
        make("idempotent", seed=seed)
    sync("idempotent")
    before = {run.info.run_id: run.data.tags for run in stored("idempotent")}
    sync("idempotent")
    assert len(before) == 2
    assert {run.info.run_id: run.data.tags for run in stored("idempotent")} == before


def test_an_older_result_is_superseded_until_it_is_back():
    path = make("superseded", 1.0).path(".json")
    old = path.read_text()
    sync("superseded")
    make("superseded", 2.0)
    sync("superseded")
    assert _superseded("superseded") == {1.0: "true", 2.0: "false"}
    path.write_text(old)
    sync("superseded")
    assert _superseded("superseded") == {1.0: "false", 2.0: "true"}


def _superseded(profile: str) -> dict[float, str]:
    return {
        run.data.metrics["fd_in_domain_1000"]: run.data.tags.get("superseded", "false")
        for run in stored(profile)
    }


def test_only_instances_of_the_selected_grid_are_shown():
    kept, other = make("selected", seed=0), make("selected", seed=1)
    paths.GRID.write_text(
        f"profile: selected\ntrain_generator:\n  {kept.cell.instance}: {{seed: 0}}\n"
    )
    sync("selected")
    assert [run.data.tags["seed"] for run in stored("selected")] == ["0"]
    assert other.path(".json").is_file()


@pytest.mark.parametrize("damage", ["text", "missing folder", "locked", "no server"])
def test_a_broken_store_is_one_line_of_warning(
    damage: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    make("broken")
    database = tmp_path / "broken.db"
    monkeypatch.setattr(paths, "TRACKING_DATABASE", database)
    monkeypatch.setattr(mlflow_store, "_BUSY_TIMEOUT_S", 0.1)
    holder = None
    if damage == "text":
        database.write_text("no database" * 100)
    elif damage == "missing folder":
        monkeypatch.setattr(paths, "TRACKING_DATABASE", tmp_path / "missing" / "mlflow.db")
    elif damage == "locked":
        holder = sqlite3.connect(database)
        holder.execute("BEGIN EXCLUSIVE")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    sync("broken")
    if holder is not None:
        holder.close()
    error = capsys.readouterr().err
    assert error.startswith("warning: MLflow: ")
    assert error.count("\n") == 1


def live(profile: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose stage takes long."""
    monkeypatch.setattr(tracking, "LIVE_AFTER_S", 0.0)
    monkeypatch.setattr(tracking, "_SHOW_EVERY_S", 0.0)
    return Run("train_generator", Cell(profile=profile, generator="sit", seed=0), {})


def test_a_long_stage_is_shown_live_and_completed_once(monkeypatch: pytest.MonkeyPatch):
    with live("live", monkeypatch) as run:
        run.log(1, {"loss": 3.0})
        run.log(2, {"loss": 2.0})
        [shown] = stored("live")
        assert shown.info.status == "RUNNING"
        assert shown.data.tags["study.live"] == "true"
        assert shown.data.metrics["loss"] == 2.0
        run.record("fd_in_domain", 1.0, n=1000)
        run.finish()
    [shown] = stored("live")
    assert shown.info.status == "FINISHED"
    assert json.loads(run.path(".json").read_text())["tracking_run"] == shown.info.run_id
    sync("live")
    sync("live")
    [shown] = stored("live")
    assert shown.data.metrics == {"loss": 2.0, "fd_in_domain_1000": 1.0}
    assert shown.data.tags["study.live"] == "false"
    client = mlflow_store.open_store("live").client
    steps = [point.step for point in client.get_metric_history(shown.info.run_id, "loss")]
    assert steps == [1, 2]


@pytest.mark.parametrize(("error", "status"), [(SystemExit, "KILLED"), (ValueError, "FAILED")])
def test_a_stage_that_ends_early_ends_its_run(
    error: type[BaseException], status: str, monkeypatch: pytest.MonkeyPatch
):
    profile = f"ended_{status.lower()}"
    run = live(profile, monkeypatch)

    def work() -> None:
        with run:
            run.log(1, {"loss": 3.0})
            raise error

    with pytest.raises(error):
        work()
    [shown] = stored(profile)
    assert shown.info.status == status
    assert not run.path(".json").exists()


def test_a_stage_killed_at_once_is_swept_up(monkeypatch: pytest.MonkeyPatch):
    live("swept", monkeypatch).log(1, {"loss": 3.0})
    with live("swept", monkeypatch) as run:
        run.log(1, {"loss": 3.0})
        run.started -= 1  # finished is in whole seconds
        run.finish()
    path = run.path(".json")
    content: dict[str, Any] = json.loads(path.read_text())
    content["environment"]["finished"] = "2100-01-01T00:00:00+00:00"
    path.write_text(json.dumps(content))
    sync("swept")
    found = {run.info.status: run.data.tags.get("superseded") for run in stored("swept")}
    assert found == {"KILLED": "true", "FINISHED": None}


def test_live_logging_that_fails_never_stops_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(paths, "TRACKING_DATABASE", tmp_path / "missing" / "mlflow.db")
    with live("unseen", monkeypatch) as run:
        run.log(1, {"loss": 3.0})
        run.log(2, {"loss": math.inf})
        run.finish()
    assert capsys.readouterr().err.count("warning: MLflow") == 1
    assert "tracking_run" not in json.loads(run.path(".json").read_text())
