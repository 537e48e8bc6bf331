"""The container's files, as far as they can be checked without building it."""

import json
import re

import pytest
from clones import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_devcontainer_builds_a_stage_that_exists(kind: str):
    file = ROOT / ".devcontainer" / kind / "devcontainer.json"
    build = json.loads(file.read_text())["build"]
    assert build["target"] in STAGES
    assert (file.parent / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (file.parent / build["context"]).resolve() == ROOT


def test_what_is_copied_is_there_and_not_ignored():
    names = re.findall(r"^COPY (.+) \./$", DOCKERFILE, re.MULTILINE)[0].split()
    kept = (ROOT / ".dockerignore").read_text().split()
    assert all((ROOT / name).is_file() and f"!{name}" in kept for name in names)


def test_the_cpu_image_leaves_out_what_only_a_gpu_needs():
    pattern = re.search(r"grep --invert-match --extended-regexp '(.+)' requirements", DOCKERFILE)
    assert pattern
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    kept = [line for line in lines if not re.search(pattern[1], line)]
    assert [line for line in kept if line.startswith(("nvidia-", "cuda-", "triton"))] == []
    names = {line.partition("==")[0] for line in kept}
    assert {"torch", "torchvision", "dvc", "mlflow", "diffusers"} <= names


def test_the_python_is_one_that_the_study_supports():
    version = re.search(r"^FROM python:3\.(\d+)-", DOCKERFILE, re.MULTILINE)
    assert version
    assert version[1] in ("11", "12", "13")
