"""What is committed: results that are evidence, never those of the profiles for trying out."""

import subprocess

import pytest
import yaml
from clones import ROOT

UNCOMMITTED = ("laptop", "smoke")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_no_report_of_laptop_or_smoke_is_tracked():
    assert git("ls-files", *(f"reports/{name}" for name in UNCOMMITTED)) == ""


@pytest.fixture
def lock() -> str:
    """The committed lock's text."""
    if not git("ls-files", "dvc.lock"):
        pytest.skip("no profile's results are committed")
    return git("show", ":dvc.lock")


def test_no_lock_entry_of_laptop_or_smoke_is_tracked(lock: str):
    instances = {name.partition("@")[2] for name in yaml.safe_load(lock)["stages"]}
    assert [i for i in instances if i.split("-")[0] in UNCOMMITTED] == []


def test_lock_grows_with_what_has_run_alone(lock: str):
    assert len(lock) < 4_000 * len(yaml.safe_load(lock)["stages"])


def test_no_large_file_is_tracked_outside_reports():
    """But the lock, a text, which has its own test."""
    files = [ROOT / name for name in git("ls-files", "-z").split("\0") if name]
    outside = [file for file in files if ROOT / "reports" not in file.parents and file.is_file()]
    large = [file for file in outside if file.stat().st_size > 500_000]
    assert [file for file in large if file != ROOT / "dvc.lock"] == []
