"""What MLflow's viewer finds: groups, names, pictures by step, models."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from PIL import Image

from study import mlflow_store, paths
from study.autoencoders.models import Autoencoder
from study.config import Cell
from study.mlflow_content import run_name
from study.tracking import Run, sync

if TYPE_CHECKING:
    from mlflow.entities import Run as StoredRun


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one store for all tests lives: creating it takes seconds. Profiles keep tests apart."""
    return tmp_path_factory.mktemp("view")


@pytest.fixture(autouse=True)
def places(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "GRID", tmp_path / "study.yaml")
    monkeypatch.setattr(paths, "TRACKING_DATABASE", database / "mlflow.db")
    monkeypatch.setattr(paths, "TRACKING_ARTIFACTS", database / "mlartifacts")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("STUDY_COMMIT", "0123456789ab")


def make(profile: str, seed: int = 0) -> Run:
    """A finished generator instance."""
    cell = Cell(profile=profile, data="shapes", arm="eq", seed=seed, generator="sit")
    run = Run("train_generator", cell, {})
    run.log(1, {"loss": 1.0})
    run.finish()
    return run


def stored(profile: str) -> "list[StoredRun]":
    runs = mlflow_store.open_store(profile).runs()
    return [run for some in runs.values() for run in some]


def test_all_runs_of_a_profile_stand_below_one():
    for seed in (0, 1):
        make("grouped", seed=seed)
    sync("grouped")
    sync("grouped")
    store = mlflow_store.open_store("grouped")
    every = store.client.search_runs([store.experiment])
    [parent] = [run for run in every if "dvc.stage" not in run.data.tags]
    assert parent.info.run_name == "profile grouped"
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in stored("grouped")} == {
        parent.info.run_id
    }
    described = store.client.get_experiment(store.experiment).tags["mlflow.note.content"]
    assert "profile `grouped`" in described


def evaluated(profile: str, arm: str, value: float) -> Run:
    """A finished evaluation with a curve of two points."""
    cell = Cell(profile=profile, data="shapes", arm=arm, seed=0, generator="sit")
    run = Run("evaluate_generator", cell, {})
    for step in (100, 200):
        run.record("fd_in_domain", value / step, step=step, n=1000)
        run.record("fd_in_domain_held_out", value, step=step, n=1000)
    run.finish()
    return run


def note(profile: str) -> str:
    store = mlflow_store.open_store(profile)
    return store.client.get_experiment(store.experiment).tags["mlflow.note.content"]


def test_the_description_links_to_the_curves_of_the_present_arms():
    for arm, value in (("plain", 2.0), ("eq", 1.0)):
        evaluated("linked", arm, value)
    sync("linked")
    old = {run.info.run_id for run in stored("linked")}
    evaluated("linked", "eq", 0.5)
    sync("linked")
    current = {
        run.info.run_id for run in stored("linked") if run.data.tags.get("superseded") != "true"
    }
    assert len(current) == 2
    [address] = re.findall(r"\[sit\]\((#/metric\?\S+)\)", note("linked"))
    query = parse_qs(address.partition("?")[2])
    assert set(json.loads(query["runs"][0])) == current != old
    assert json.loads(query["metric"][0]) == "fd_in_domain_1000"
    assert query["x_axis"] == ["step"]


def test_a_description_that_is_too_long_loses_whole_links(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mlflow_store, "_NOTE_LENGTH", 700)
    evaluated("short", "eq", 1.0)
    sync("short")
    assert "#/metric" not in note("short")
    assert note("short").startswith("**EQ-VAE")


def test_sample_grids_are_images_by_step():
    cell = Cell(profile="grids", data="shapes", arm="eq", seed=0, generator="sit")
    run = Run("evaluate_generator", cell, {})
    for step, grey in ((100, 10), (200, 90)):
        run.record("fd_in_domain", 1 / step, step=step, n=1000)
        run.grid(step, np.full((12, 3, 128, 128), grey, dtype=np.uint8))
    run.finish()
    with Image.open(run.path("-steps.png")) as picture:
        assert picture.size == (8 * 64, 2 * 64)
    sync("grids")
    [shown] = stored("grids")
    client = mlflow_store.open_store("grids").client
    names = [Path(f.path).name for f in client.list_artifacts(shown.info.run_id, "images")]
    steps = {name.split("+step+")[1].split("+")[0] for name in names}
    assert steps == {"100", "200"}
    history = client.get_metric_history(shown.info.run_id, "fd_in_domain_1000")
    assert [(point.step, point.value) for point in history] == [(100, 0.01), (200, 0.005)]


def test_pictures_of_another_instance_are_not_taken(tmp_path: Path):
    first, second = make("alike", seed=1), make("alike", seed=11)
    for run in (first, second):
        run.path(".png").write_bytes(b"picture")
        run.path("-latents.png").write_bytes(b"picture")
    sync("alike")
    client = mlflow_store.open_store("alike").client
    for shown in stored("alike"):
        seed = shown.data.tags["seed"]
        files = [f.path for f in client.list_artifacts(shown.info.run_id)]
        assert len(files) == 2
        assert all(f"-{seed}-sit" in name for name in files)


def test_a_fine_tuned_autoencoder_can_be_downloaded_and_loaded(kl: Autoencoder, tmp_path: Path):
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    cell = Cell(profile="models", data="shapes", autoencoder="vae", arm="eq", seed=0)
    settings = {"weights": None, "published_scale": 0.5}
    values = {"arm": {"trainable": "all"}, "finetune_autoencoder": {}, "autoencoder": settings}
    run = Run("finetune_autoencoder", cell, values)
    kl.save(run.output())
    run.finish()
    sync("models")
    [shown] = stored("models")
    client = mlflow_store.open_store("models").client
    folder = client.download_artifacts(shown.info.run_id, "autoencoder", str(tmp_path))
    loaded: Any = AutoencoderKL.from_pretrained(folder)
    x = torch.zeros(1, 3, 16, 16)
    assert torch.equal(loaded.encode(x).latent_dist.mean, kl.model.encode(x).latent_dist.mean)
    assert "models-shapes-vae-eq-0" in (Path(folder) / "README.md").read_text()


@pytest.mark.parametrize(
    ("choices", "stage", "name"),
    [
        ({"data": "d"}, "prepare_data", "d | prepare_data"),
        ({"data": "d", "role": "target"}, "train_network", "target | train_network"),
        (
            {"data": "d", "autoencoder": "a", "arm": "eq", "seed": 2},
            "finetune_autoencoder",
            "a eq seed 2 | finetune_autoencoder",
        ),
        (
            {"autoencoder": "a", "arm": "eq", "seed": 2, "generator": "sit", "scaling": "fixed"},
            "evaluate_generator",
            "sit eq a fixed seed 2 | evaluate_generator",
        ),
    ],
)
def test_a_run_is_called_by_what_one_compares(choices: dict[str, Any], stage: str, name: str):
    assert run_name({"profile": "p", **choices}, stage) == name
