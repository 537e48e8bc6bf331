"""Results travel by a remote of DVC: push, a fresh clone, pull, and nothing is left to run."""

import shutil
from dataclasses import replace
from pathlib import Path

from clones import Clone, restored_stages, run_stages

AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@example.org")


def test_a_fresh_clone_pulls_everything_and_runs_nothing(smoke: Clone, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    first = replace(smoke, root=tmp_path / "first")
    shutil.copytree(smoke.root, first.root, symlinks=True)
    first.run("dvc", "remote", "add", "--default", "storage", str(storage))
    first.run("dvc", "push")
    kept = ("dvc.lock", "params/study.yaml", "reports/smoke", ".dvc/config")
    first.run("git", "add", "--force", *kept)
    first.run("git", *AUTHOR, "commit", "--quiet", "--message=results")
    second = replace(smoke, root=tmp_path / "second")
    first.run("git", "clone", "--quiet", str(first.root), str(second.root))
    assert not (second.root / "outputs").exists()
    second.run("dvc", "pull")
    log = second.repro()
    assert (run_stages(log), restored_stages(log)) == (set(), set())
    ours, theirs = ({p.relative_to(c.root) for p in c.outputs()} for c in (first, second))
    assert ours == theirs
    assert all((second.root / path).exists() for path in theirs)
    assert not smoke.connections.exists()
