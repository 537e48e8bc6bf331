"""What is edited between two starts decides whether the second goes on or begins afresh."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from study import paths
from study.config import STAGES, Cell, load
from study.grid import expand, read_profile
from study.tracking import Run

CELL = Cell(
    profile="smoke",
    data="shapes",
    autoencoder="kl_small",
    arm="eq",
    seed=0,
    generator="sit",
    scaling="standardised",
    backbone="Ti_2",
)
LATENTS = "outputs/smoke/cache_latents/smoke-shapes-kl_small-eq-0"


@pytest.fixture
def root(params: Path, tmp_path: Path) -> Path:
    """A checkout with what a generator is made from, profile smoke selected."""
    source = Path(__file__).resolve().parents[2]
    shutil.copy(source / "dvc.yaml", tmp_path)
    shutil.copytree(
        source / "study", tmp_path / "study", ignore=shutil.ignore_patterns("__pycache__")
    )
    (params / "study.yaml").write_text(yaml.safe_dump(expand("smoke", read_profile("smoke"))))
    for folder in (LATENTS, "outputs/smoke/prepare_data/smoke-shapes"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "data.npy").write_bytes(b"data")
    return tmp_path


def begun() -> Run:
    return Run("train_generator", CELL, load(STAGES["train_generator"], CELL))


def parameter(root: Path) -> None:
    file = root / "params" / "profile" / "smoke.yaml"
    content = yaml.safe_load(file.read_text())
    content["train_generator"]["learning_rate"] = 2e-3
    file.write_text(yaml.safe_dump(content))


def objective(root: Path) -> None:
    file = root / "params" / "generator" / "sit.yaml"
    file.write_text(file.read_text().replace("linear", "gvp"))


def latents(root: Path) -> None:
    (root / LATENTS / "data.npy").write_bytes(b"other")


def module(root: Path) -> None:
    with (root / "study" / "generators" / "sit.py").open("a") as file:
        file.write("# Edited.\n")


def other_stage(root: Path) -> None:
    file = root / "params" / "profile" / "smoke.yaml"
    content = yaml.safe_load(file.read_text())
    content["evaluate_generator"]["num_steps"] = 3
    file.write_text(yaml.safe_dump(content))
    with (root / "study" / "report" / "tables.py").open("a") as file:
        file.write("# Edited.\n")


@pytest.mark.parametrize("edit", [parameter, objective, latents, module])
def test_what_a_generator_depends_on_makes_it_begin_afresh(
    root: Path, edit: Callable[[Path], None]
) -> None:
    first = begun()
    first.keeper.save({"weights": torch.ones(3)})
    found = begun().keeper.restore()
    assert found is not None
    edit(root)
    assert begun().keeper.restore() is None


def test_what_it_does_not_depend_on_lets_it_go_on(root: Path) -> None:
    begun().keeper.save({"step": 3})
    other_stage(root)
    assert begun().keeper.restore() == {"step": 3}


def test_compiled_code_is_found_where_the_state_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    monkeypatch.setattr("study.acceleration.own_code", names.append)
    for edit in (other_stage, parameter):
        for _ in range(2):
            assert begun().keeper.folder
        edit(root)
    assert begun().keeper.folder
    assert names[0] == names[1] == names[2] == names[3] != names[4]


def test_what_was_recorded_before_the_interruption_is_still_there(root: Path) -> None:
    first = begun()
    first.log(1, {"loss": 0.5})
    first.record("fd_in_domain", 2.0, n=10)
    first.keeper.save({"step": 1})
    again = begun()
    assert again.keeper.restore() == {"step": 1}
    assert (again.curve, again.records) == (first.curve, first.records)
    assert again.started <= first.started + 1


def test_a_finished_stage_leaves_no_state(root: Path) -> None:
    run = begun()
    run.keeper.save({"step": 1})
    run.forget()
    assert not paths.work("train_generator", CELL.instance).exists()
