"""Do a profile's committed results still follow from the code beside them?

Evidence belongs to a commit: the last that changed the profile's results. There, nothing may be
left to run; what was edited since is listed.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import paths
from study.config import ConfigError, StudyError, load_grid

# They decide what runs and how results are shown, but no number.
_NO_NUMBERS = ("check_study", "render_report")
_CLEAN = "Data and pipelines are up to date."


@dataclass(frozen=True, slots=True)
class Evidence:
    """What stands behind a profile's committed results."""

    commit: str
    lock: str
    """Digest of `dvc.lock`, SHA-256."""
    stages: int
    """Entries of the lock that belong to the profile."""
    edited: list[str]
    """Code and parameters that such a stage depends on, and that differ from the commit."""


def verify(profile: str) -> Evidence:
    """Check the commit of a profile's results in a worktree of its own.

    Raises:
        ConfigError: no results of the profile are committed.
        StudyError: something is left to run at that commit.
    """
    results = f"reports/{profile}/results.csv"
    commit = _git("log", "-1", "--format=%H", "--", results)
    if not commit or not (paths.ROOT / results).is_file():
        raise ConfigError(f"{results}: must be committed")
    with _worktree(commit) as tree:
        locked = tree / "dvc.lock"
        content = locked.read_bytes() if locked.is_file() else b""
        entries = _entries(locked, profile) if content else []
        if not entries:
            raise StudyError(f"dvc.lock at {commit[:12]}: must have entries of profile {profile}")
        left = _left_to_run(tree, profile)
    if left:
        rule = "results must follow from the code of their commit"
        raise StudyError(f"{profile} at {commit[:12]}: {left[0]} would run: {rule}")
    code = {dep["path"] for entry in entries for dep in entry["deps"]}
    edited = _git("diff", "--name-only", commit, "--", *sorted(filter(_is_code, code)))
    parameters = _changed_parameters(entries)
    lock = hashlib.sha256(content).hexdigest()
    return Evidence(commit, lock, len(entries), [*edited.splitlines(), *parameters])


def summary(profile: str, evidence: Evidence) -> str:
    """A few lines."""
    lines = [
        f"{profile}: results of commit {evidence.commit[:12]}, lock {evidence.lock[:12]}: "
        f"all {evidence.stages} stages are up to date there"
    ]
    if evidence.edited:
        lines.append("edited since, of what can change numbers:")
        lines += [f"  {path}" for path in evidence.edited]
    else:
        lines.append("nothing that can change numbers was edited since")
    return "\n".join(lines)


def _entries(lock: Path, profile: str) -> list[dict[str, Any]]:
    found = []
    for name, entry in load_grid(lock).get("stages", {}).items():
        stage, _, instance = name.partition("@")
        if stage not in _NO_NUMBERS and instance.partition("-")[0] == profile:
            found.append(entry)
    return found


def _changed_parameters(entries: list[dict[str, Any]]) -> list[str]:
    """What the lock's entries were computed with, and what stands in its place now."""
    used: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for file, values in entry.get("params", {}).items():
            used.setdefault(file, {}).update(values)
    lines: list[str] = []
    for file, values in sorted(used.items()):
        now = load_grid(paths.ROOT / file) if (paths.ROOT / file).is_file() else {}
        for key, value in sorted(values.items()):
            lines += _differences(f"{file}: {key}", value, now.get(key))
    return lines


def _differences(name: str, then: Any, now: Any) -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            yield from _differences(f"{name}.{key}", then.get(key), now.get(key))
    elif then != now:
        yield f"{name} = {now!r}, was {then!r}"


def _is_code(path: str) -> bool:
    return path.startswith("study/")


@contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "study"
        _git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _left_to_run(tree: Path, profile: str) -> list[str]:
    """Stages that DVC would run, outputs that are not there aside."""
    _run(tree, "study", "use", profile, "--without-inputs")
    _run(tree, "dvc", "config", "--local", "core.no_scm", "true")
    # A stage that would run and misses what it reads ends the dry run.
    shown = _run(tree, "dvc", "repro", "--dry", "--allow-missing", must=False)
    found = re.findall(r"(?:Running stage|failed to reproduce) '(.+?)'", shown)
    return found or ([] if _CLEAN in shown else shown.strip().splitlines()[-1:])


def _run(tree: Path, *command: str, must: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tree, capture_output=True, text=True, check=False
    )
    if done.returncode and must:
        text = " ".join((done.stderr or done.stdout).split())[-300:]
        raise StudyError(f"{' '.join(command)} at the commit of the results: {text}")
    return done.stdout + done.stderr


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()
