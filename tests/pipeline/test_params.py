"""Parameters that each instance depends on: what it composes, all of it, and nothing else."""

import ast
import sys
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, get_args, get_type_hints

import hydra
import pytest
import yaml
from clones import ROOT
from declared import PROFILES, STAGES, filled, instances

from study import config as configuration
from study import paths
from study.config import Cell, load
from study.grid import expand, read_profile

composition = sys.modules["study.config.load"]

# They compose no group: the first loads every instance itself, the last reads the grid.
WHOLE = {"check_study": "params", "render_report": "params/study.yaml"}


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that Hydra composes while a test runs, by its own record of choices."""
    files: list[str] = []
    compose = lru_cache(hydra.compose)

    def recording(name: str | None, overrides: list[str]) -> Any:
        runtime = compose(name, tuple(overrides), return_hydra_config=True).hydra.runtime
        chosen = [item for item in runtime.choices.items() if "hydra" not in item[0]]
        files.extend(f"params/{group}/{choice}.yaml" for group, choice in chosen)
        return compose(name, tuple(overrides))

    monkeypatch.setattr(hydra, "compose", recording)
    return files


def listed(stage: str, key: str, item: dict[str, Any]) -> dict[str, list[str] | None]:
    """Parameter files of an instance in `dvc.yaml`, each with its keys; None: whole."""
    entries = filled(STAGES[stage].get("params", []), key, item)
    return {file: keys for entry in entries for file, keys in entry.items()}


def command(stage: str, key: str, item: dict[str, Any]) -> tuple[str, Cell]:
    """Module and cell of an instance's command."""
    python, option, module, *arguments = filled(STAGES[stage]["cmd"], key, item).split()
    assert (python, option) == ("python", "-m")
    return module, Cell.parse(arguments)


def test_stages_modules_and_configurations_have_the_same_names():
    modules = {path.stem for path in (ROOT / "study/stages").glob("[!_]*.py")}
    assert set(STAGES) == modules == set(configuration.STAGES)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_command_names_its_instance(profile: str):
    for stage, key, item in instances(profile):
        module, cell = command(stage, key, item)
        assert (module, cell.instance) == (f"study.stages.{stage}", key)


@pytest.mark.parametrize("profile", PROFILES)
def test_an_instance_tracks_the_files_that_hydra_composes(profile: str, composed: list[str]):
    own = f"params/profile/{profile}.yaml"
    for stage, key, item in instances(profile):
        composed.clear()
        composition._composed.cache_clear()
        load(configuration.STAGES[stage], command(stage, key, item)[1])
        tracked = listed(stage, key, item)
        if stage in WHOLE:
            assert composed == []
            assert WHOLE[stage] in [*STAGES[stage]["deps"], *tracked]
            continue
        assert set(tracked) == set(composed), key
        assert {file for file, keys in tracked.items() if keys is None} == set(composed) - {own}


def test_the_report_tracks_the_claims_and_the_rules_that_judge_them():
    # As files: their values were a third of dvc.lock, which dvc reads and writes whole.
    assert {"params/claims.yaml", "params/study.yaml"} <= set(STAGES["render_report"]["deps"])
    assert listed("render_report", "laptop", {"profile": "laptop"}) == {}


@pytest.mark.parametrize("profile", PROFILES)
def test_an_instance_tracks_its_own_section_of_the_profile_only(profile: str):
    for stage, key, item in instances(profile):
        if stage not in WHOLE:
            schema = configuration.STAGES[stage]
            sections = {f.name for f in fields(schema)} - {"cell", *groups()}
            assert sections == {stage}
            assert listed(stage, key, item)[f"params/profile/{profile}.yaml"] == [stage]


def test_every_parameter_is_read_somewhere():
    """By name: a field that nothing outside the configuration mentions decides nothing."""
    read = {
        node.attr
        for path in (ROOT / "study").rglob("*.py")
        if path.parent.name != "config"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    unread = {
        f"{schema.__name__}.{item.name}"
        for schema in schemas()
        for item in fields(schema)
        if item.name not in read
    }
    assert unread == set()


def groups() -> set[str]:
    return {path.name for path in paths.PARAMS.iterdir() if path.is_dir()}


def schemas() -> set[Any]:
    """Dataclasses of all groups and sections."""
    found: set[Any] = set()
    for stage in configuration.STAGES.values():
        for name, hint in get_type_hints(stage).items():
            if name != "cell":
                found |= {some for some in (hint, *get_args(hint)) if is_dataclass(some)}
    return found


def test_the_committed_selection_is_that_of_its_profile():
    written = yaml.safe_load((ROOT / "params" / "study.yaml").read_text())
    profile = written["profile"]
    # Otherwise a fresh clone could not run what it has selected.
    assert written == expand(profile, read_profile(profile))
