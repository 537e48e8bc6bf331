"""Results that are committed carry a study from one machine to the next."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from clones import Clone, run_stages

AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@example.org")
PROFILE = "params/profile/smoke.yaml"


@pytest.fixture(scope="module")
def elsewhere(smoke: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone of the repository with committed results of `smoke`, without outputs and cache."""
    folder = tmp_path_factory.mktemp("elsewhere")
    first = replace(smoke, root=folder / "first")
    shutil.copytree(smoke.root, first.root, ignore=shutil.ignore_patterns("outputs", "cache"))
    first.run("git", "add", "--force", "dvc.lock", "reports/smoke")
    first.run("git", *AUTHOR, "commit", "--quiet", "--message=results")
    second = replace(smoke, root=folder / "second")
    first.run("git", "clone", "--quiet", str(first.root), str(second.root))
    assert not (second.root / "outputs").exists()
    return second


def test_committed_results_are_verified_on_a_clone(elsewhere: Clone) -> None:
    said = elsewhere.run("python", "-m", "study", "verify", "smoke")
    commit = elsewhere.run("git", "rev-parse", "HEAD")[:12]
    assert re.search(rf"smoke: results of commit {commit}, lock \w+: all \d+ stages are up", said)
    assert "nothing that can change numbers was edited since" in said
    assert "verify" not in elsewhere.run("git", "worktree", "list")


def test_code_edited_since_is_listed(elsewhere: Clone) -> None:
    file = elsewhere.root / "study" / "equivariance.py"
    before = file.read_text()
    file.write_text(before + "\n# edited\n")
    try:
        said = elsewhere.run("python", "-m", "study", "verify", "smoke")
    finally:
        file.write_text(before)
    assert said.splitlines()[-1] == "  study/equivariance.py"


def test_parameters_edited_since_are_listed(elsewhere: Clone) -> None:
    profile = elsewhere.root / PROFILE
    before = profile.read_text()
    profile.write_text(before.replace("num_samples: 24", "num_samples: 32"))
    try:
        said = elsewhere.run("python", "-m", "study", "verify", "smoke")
    finally:
        profile.write_text(before)
    line = f"  {PROFILE}: evaluate_generator.num_samples = 32, was 24"
    assert said.splitlines()[-2:] == ["edited since, of what can change numbers:", line]


def test_results_of_other_code_are_refused(elsewhere: Clone, tmp_path: Path) -> None:
    other = replace(elsewhere, root=tmp_path / "other")
    elsewhere.run("git", "clone", "--quiet", str(elsewhere.root), str(other.root))
    with (other.root / "study" / "equivariance.py").open("a") as file:
        file.write("\n# edited\n")
    with (other.root / "reports" / "smoke" / "results.csv").open("a") as file:
        file.write("\n")
    other.run("git", *AUTHOR, "commit", "--quiet", "--all", "--message=both")
    said = other.run("python", "-m", "study", "verify", "smoke", code=1)
    assert re.search(r"error: smoke at \w+: \w+@smoke\S* would run: results must follow", said)


def test_results_that_are_not_committed_are_named(elsewhere: Clone) -> None:
    said = elsewhere.run("python", "-m", "study", "verify", "images", code=2)
    assert said.strip() == "error: reports/images/results.csv: must be committed"


@pytest.mark.slow
def test_a_seed_is_added_and_no_finished_one_runs_again(elsewhere: Clone, tmp_path: Path) -> None:
    profile = elsewhere.root / PROFILE
    profile.write_text(profile.read_text().replace("seeds: [0]", "seeds: [0, 1]"))
    before = (elsewhere.root / "reports" / "smoke" / "results.csv").read_text().splitlines()
    elsewhere.use("smoke")
    elsewhere.run("dvc", "remote", "add", "--local", "--default", "empty", str(tmp_path))
    # What new cells read: made again where it is, which gives the same bits.
    shared = [name for name in elsewhere.instances() if name.startswith("pretrain_autoencoder@")]
    elsewhere.repro("prepare_data@smoke-shapes", "reference_statistics@smoke-shapes", *shared)
    ran = run_stages(elsewhere.repro("--pull", "--allow-missing"))
    assert {name for name in ran if not re.search(r"-1(-|$)", name)} <= {"render_report@smoke"}
    seeded = {name for name in elsewhere.instances() if re.search(r"-1(-|$)", name)}
    assert seeded <= ran
    after = set((elsewhere.root / "reports" / "smoke" / "results.csv").read_text().splitlines())
    assert set(before) <= after
