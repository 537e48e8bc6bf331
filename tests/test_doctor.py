import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.exceptions import DvcException
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.strictyaml import load

from study import __main__ as command
from study import doctor, paths, preflight
from study.doctor import Finding, examine, report
from study.grid import expand, read_profile

REPOSITORY = Path(__file__).parents[1]

check_instances = preflight.check_instances


def to_yaml(grid: dict[str, Any]) -> str:
    return yaml.safe_dump(grid, sort_keys=False)


@pytest.fixture
def root(params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the parameters with profile smoke selected, nothing run."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    monkeypatch.setattr(paths, "TRACKING_DATABASE", tmp_path / "mlflow.db")
    (params / "study.yaml").write_text(to_yaml(expand("smoke", read_profile("smoke"))))
    # Composing every instance takes seconds; tests of that check put it back.
    monkeypatch.setattr(preflight, "check_instances", lambda selected: None)
    return tmp_path


def faults() -> dict[str, Finding]:
    return {finding.check: finding for finding in examine() if finding.cure}


def test_a_fresh_checkout_has_no_fault(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["doctor"]) == 0
    assert "profile smoke" not in capsys.readouterr().err
    assert faults() == {}


def test_a_missing_package_is_named(root: Path) -> None:
    file = root / "pyproject.toml"
    file.write_text('[project]\ndependencies = ["no-such-package>=1", "numpy<1.0"]\n')
    text = faults()["packages"].text
    assert "no-such-package missing, needed >=1" in text
    assert "numpy " in text


def test_a_full_disk_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.preflight.LEAST_FREE_BYTES", 1e30)
    assert {"disk", "profile"} <= set(faults())


def test_a_parameter_that_is_wrong_is_named(
    root: Path, params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "check_instances", check_instances)
    file = params / "profile" / "smoke.yaml"
    file.write_text(file.read_text().replace("batch_size: 4", "batch_size: 0", 1))
    assert "batch_size = 0: must be at least 1" in faults()["profile"].text


def test_without_a_grid_everything_else_is_still_looked_at(root: Path) -> None:
    paths.GRID.unlink()
    assert "no such file" in faults()["profile"].text
    assert "dvc.lock" in {finding.check for finding in examine()}


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 500]
)
def test_a_damaged_database_is_named(root: Path, content: bytes) -> None:
    paths.TRACKING_DATABASE.write_bytes(content)
    assert "python -m study track" in faults()["mlflow"].cure


def test_a_sound_database_is_no_fault(root: Path) -> None:
    sqlite3.connect(paths.TRACKING_DATABASE).execute("CREATE TABLE a (b)").connection.close()
    assert "mlflow" not in faults()


def test_a_damaged_lock_file_is_named(root: Path) -> None:
    (root / "dvc.lock").write_text("stages: [\n")
    assert "git checkout dvc.lock" in faults()["dvc.lock"].cure


def test_a_part_of_a_lock_file_that_dvc_refuses_is_a_fault(root: Path) -> None:
    """Cut anywhere: much of what is left is YAML."""
    file, text = root / "dvc.lock", (REPOSITORY / "dvc.lock").read_text()
    refused = []
    for end in [*range(60), *range(60, 6000, 23)]:
        file.write_text(text[:end])
        try:
            load(str(file), COMPILED_LOCKFILE_SCHEMA)
        except DvcException:
            refused.append(end)
            assert all(finding.cure for finding in doctor._lock_file()), text[:end]
    assert len(refused) > 50
    file.write_text(text)
    assert not any(finding.cure for finding in doctor._lock_file())


def test_an_entry_that_was_cut_and_that_dvc_takes_for_whole_is_a_fault(root: Path) -> None:
    file = root / "dvc.lock"
    file.write_text("schema: '2.0'\nstages:\n  a@b:\n    cmd: python -m a\n")
    load(str(file), COMPILED_LOCKFILE_SCHEMA)
    assert faults()["dvc.lock"].text == "incomplete: a@b"


def test_a_damaged_lock_of_dvc_is_named(root: Path) -> None:
    file = root / ".dvc" / "tmp" / "rwlock"
    file.parent.mkdir(parents=True)
    file.write_text('{"read": {}}')
    assert faults() == {}
    file.write_text("")
    assert faults()["dvc"].cure.startswith("rm .dvc/tmp/rwlock")


def test_unfinished_state_outside_the_grid_is_a_fault(root: Path) -> None:
    for instance in ("smoke-shapes-kl_small-eq-0", "old-shapes-kl_small-eq-0"):
        folder = root / "work" / "finetune_autoencoder" / instance / "abc"
        folder.mkdir(parents=True)
        (folder / "state-00000000.pt").write_bytes(bytes(2_000_000))
    found = [finding for finding in examine() if finding.check == "unfinished"]
    assert [bool(finding.cure) for finding in found] == [True, False]
    assert found[0].text == "finetune_autoencoder@old-shapes-kl_small-eq-0, 2 MB"
    assert found[0].cure.endswith("rm -r work/finetune_autoencoder/old-shapes-kl_small-eq-0")


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_who_holds_a_lock_is_said_and_a_free_one_is_not(root: Path) -> None:
    locks = root / "work" / "locks"
    locks.mkdir(parents=True)
    (locks / "train_generator@free").write_text("process 1 on here since then")
    held = locks / "train_generator@held"
    held.write_text("process 2 on there since now")
    process = [sys.executable, "-c", HOLD, str(held)]
    with subprocess.Popen(process, stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        (found,) = (finding for finding in examine() if finding.check == "running")
        holder.stdin.close()
    assert found == Finding("running", "train_generator@held by process 2 on there since now")


def test_a_check_that_breaks_is_a_finding(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def _broken_check():
        raise OSError(5, "no such device")

    monkeypatch.setattr(doctor, "CHECKS", (_broken_check, doctor._python))
    assert [f.check for f in examine()] == ["broken check", "python"]
    assert "no such device" in faults()["broken check"].text


def test_a_fault_is_one_line_and_the_exit_code_one(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "dvc.lock").write_text("stages: [\n")
    with pytest.raises(SystemExit) as stopped:
        command.main(["doctor"])
    assert stopped.value.code == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_json_holds_every_finding(root: Path) -> None:
    found = json.loads(report(examine(), as_json=True))
    assert {"python", "disk", "profile"} <= {each["check"] for each in found}
    assert all(set(each) == {"check", "text", "cure"} for each in found)
