"""`python -m study` from outside: bad input is one line on stderr and exit code 2."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from study import paths

Edit = Callable[..., None]
Study = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def profile(params: Path, edit: Edit) -> Path:
    """The profile `smoke` with one arm and no generator."""
    file = params / "profile" / "smoke.yaml"
    edit(file, "grid", "autoencoders", value={"kl_small": ["eq"]})
    edit(file, "grid", "generators", value=[])
    return file


def environment() -> dict[str, str]:
    """In which a command works on the temporary root."""
    return os.environ | {
        "STUDY_ROOT": str(paths.ROOT),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }


@pytest.fixture
def study(profile: Path) -> Study:
    """Run a command of the study on the temporary root."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "study", *arguments],
            capture_output=True,
            text=True,
            cwd=paths.ROOT,
            env=environment(),
            timeout=60,
            check=False,
        )

    return run


def refused(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """One line names the field or file, the value and the rule; nothing was written."""
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    assert not paths.GRID.exists()


def test_a_reader_that_has_seen_enough_is_no_error(profile: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "study", "use", "smoke"]
    done = subprocess.run(
        command,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        cwd=paths.ROOT,
        env=environment(),
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
    assert paths.GRID.exists()


def test_selecting_and_checking_a_good_profile(study: Study) -> None:
    used = study("use", "smoke")
    assert (used.returncode, used.stderr) == (0, "")
    assert used.stdout == "params/study.yaml: profile smoke; now run dvc repro\n"
    assert yaml.safe_load(paths.GRID.read_text())["profile"] == "smoke"
    checked = study("check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith("profile smoke: parameters, data, weights and disk are fine")


def test_an_unknown_profile(study: Study) -> None:
    refused(study("use", "nope"), "profile = 'nope'", "must be one of", "smoke")


def test_a_profile_that_has_not_run_is_not_tracked(study: Study) -> None:
    refused(study("track", "nope"), "reports/nope/metrics", "no such folder")


def test_checking_before_selecting(study: Study) -> None:
    refused(study("check"), "params/study.yaml", "no such file", "python -m study use PROFILE")


def test_a_replacement_without_a_name(study: Study) -> None:
    refused(study("use", "smoke", "data"), "'data'", "must be KEY=NAME")


def test_a_wrong_type(study: Study, profile: Path, edit: Edit) -> None:
    edit(profile, "prepare_data", "image_size", value="large")
    file = "params/profile/smoke.yaml: prepare_data.image_size = 'large'"
    refused(study("use", "smoke"), file, "could not be converted to Integer")


def test_a_value_out_of_range(study: Study, profile: Path, edit: Edit) -> None:
    edit(profile, "prepare_data", "image_size", value=33)
    file = "params/profile/smoke.yaml: prepare_data.image_size = 33"
    refused(study("use", "smoke"), file, "must be a multiple of 8")


def test_an_unknown_key(study: Study, params: Path, edit: Edit) -> None:
    edit(params / "data" / "shapes.yaml", "num_clases", value=3)
    file = "params/data/shapes.yaml: num_clases = 3"
    refused(study("use", "smoke"), file, "unknown; one of source, path")


def test_a_missing_data_directory(study: Study) -> None:
    refused(study("use", "smoke", "data=image_folder"), "data/image_folder", "no such folder")


def test_a_class_folder_without_images(study: Study) -> None:
    (paths.ROOT / "data" / "image_folder" / "train" / "bee").mkdir(parents=True)
    result = study("use", "smoke", "data=image_folder")
    refused(result, "data/image_folder/train/bee", "no images", "must have at least one of .bmp")


def test_a_weights_directory_without_a_config(study: Study, profile: Path, edit: Edit) -> None:
    edit(profile, "grid", "autoencoders", value={"taesd": ["eq"]})
    (paths.ROOT / "weights" / "taesd").mkdir(parents=True)
    refused(study("use", "smoke"), "weights/taesd/config.json", "missing", "must be a diffusers")
