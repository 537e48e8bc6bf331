"""Damaged parameters and data, given to the commands themselves: one line, or a whole result."""

import random
import shutil
import time
from collections.abc import Callable

import pytest
import yaml
from clones import Clone, make_clone
from test_mutated_data import write_folder, write_parquet
from test_mutated_parameters import GROUPS, mutated

pytestmark = pytest.mark.slow

COUNT = 20
LONGEST_S = 10.0
"""Or three times an undamaged check, on a machine that is busy with other things."""
CHECK = ("-m", "study.stages.check_study", "profile=smoke")


@pytest.fixture
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with profile smoke."""
    made = make_clone(tmp_path_factory.mktemp("command_line"))
    made.use("smoke")
    return made


@pytest.fixture
def longest_s(clone: Clone) -> float:
    """How long a command may take."""
    began = time.monotonic()
    clone.run("python", *CHECK)
    return max(LONGEST_S, 3 * (time.monotonic() - began))


def outcome(clone: Clone, longest_s: float, *command: str) -> str:
    """Whether the command did its work, or refused it in one line."""
    began = time.monotonic()
    done = clone.attempt("python", *command)
    assert time.monotonic() - began < longest_s
    assert done.returncode in (0, 2), done.stderr
    if done.returncode == 0:
        return "done"
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert len(line) < 2000
    return "refused"


def test_edited_parameters(clone: Clone, longest_s: float) -> None:
    rng, found = random.Random(7), set()
    params = clone.root / "params"
    files = [file for group in sorted(GROUPS) for file in sorted((params / group).glob("*.yaml"))]
    for _ in range(COUNT):
        file = rng.choice(files)
        whole = file.read_bytes()
        file.write_bytes(mutated(whole.decode(), rng))
        found.add(outcome(clone, longest_s, *CHECK))
        file.write_bytes(whole)
    assert "refused" in found


@pytest.mark.parametrize(
    ("data", "write"), [("image_folder", write_folder), ("parquet", write_parquet)]
)
def test_damaged_data(
    clone: Clone, longest_s: float, data: str, write: Callable[..., object]
) -> None:
    file = clone.root / "params" / "profile" / "smoke.yaml"
    content = yaml.safe_load(file.read_text())
    content["prepare_data"] |= {"train_images": None, "validation_images": None}
    file.write_text(yaml.safe_dump(content))
    store = clone.root / "outputs/smoke/prepare_data" / f"smoke-{data}"
    metrics = clone.root / "reports/smoke/metrics/prepare_data" / f"smoke-{data}.json"
    found = set()
    for seed in range(COUNT):
        for folder in (clone.root / "data" / data, store):
            shutil.rmtree(folder, ignore_errors=True)
        metrics.unlink(missing_ok=True)
        write(clone.root / "data" / data, random.Random(seed))
        command = ("-m", "study.stages.prepare_data", "profile=smoke", f"data={data}")
        found.add(result := outcome(clone, longest_s, *command))
        there = [(store / "manifest.json").is_file(), metrics.is_file()]
        assert there == [result == "done"] * 2
    assert "refused" in found
