"""What is committed: results that are evidence, never those of the profiles for trying out."""

import subprocess

import yaml
from clones import ROOT

UNCOMMITTED = ("laptop", "smoke")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_no_report_of_laptop_or_smoke_is_tracked():
    assert git("ls-files", *(f"reports/{name}" for name in UNCOMMITTED)) == ""


def test_no_lock_entry_of_laptop_or_smoke_is_tracked():
    if not git("ls-files", "dvc.lock"):
        return
    stages = yaml.safe_load(git("show", ":dvc.lock")).get("stages", {})
    instances = {name.partition("@")[2] for name in stages}
    assert [i for i in instances if i.split("-")[0] in UNCOMMITTED] == []


def test_no_large_file_is_tracked_outside_reports():
    """The lock, a text, grows by some 3 kB an instance: all of profile `lab` would be 2 MB."""
    files = [ROOT / name for name in git("ls-files", "-z").split("\0") if name != "dvc.lock"]
    outside = [file for file in files if ROOT / "reports" not in file.parents and file.is_file()]
    assert [file for file in outside if file.stat().st_size > 500_000] == []
