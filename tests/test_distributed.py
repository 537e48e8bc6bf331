"""Several processes learn, make and measure what one does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from processes import CPU, Processes
from torch import nn

from study.autoencoders.models import Autoencoder
from study.autoencoders.monitor import Views
from study.config import (
    ArmConfig,
    AutoencoderTrainingConfig,
    BackboneConfig,
    ConfigError,
    Family,
    LatentSpec,
    SamplingMethod,
    TrainGeneratorConfig,
)
from study.config.generator import Objective
from study.config.load import generator_group
from study.evaluation.features import FeatureExtractor
from study.evaluation.networks.in_domain import InDomainNetwork, build_network
from study.evaluation.networks.perceptual import PerceptualDistance
from study.generators.objectives import build_objective
from study.generators.targets import InDomainTarget
from study.latents import write_cache
from study.launch import processes as wanted

Same = Callable[..., None]
RELATIVE = 1e-5
STEPS = 50


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def several(request: pytest.FixtureRequest) -> Iterator[Processes]:
    """Processes of a number, which stay for all tests of it."""
    made = Processes(request.param)
    yield made
    made.pool.shutdown()


@pytest.fixture
def train(
    tmp_path: Path,
    make_autoencoder: Callable[[Family], Autoencoder],
    images: np.ndarray,
    labels: np.ndarray,
    backbone: BackboneConfig,
    make_run: Callable[..., TrainGeneratorConfig],
) -> Callable[..., Any]:
    """Calls `processes.generator` for a generator by name, on latents of its family."""
    torch.manual_seed(3)
    target = InDomainTarget(build_network("patch", [4, 8], 8, 4).eval().requires_grad_(False))

    def run(call: Callable[..., Any], name: str, folder: str, *more: Any, **changes: Any) -> Any:
        family, latents = (Family.vq if name == "maskgit" else Family.kl), tmp_path / f"l-{name}"
        if not latents.exists():
            write_cache(latents, make_autoencoder(family), images, labels, 4, 0.5, 16, 100)
        size = backbone if name != "maskgit" else _with(backbone, patch_size=1)
        kind: Any = generator_group(name)
        if name == "repa":
            kind = _with(kind, target=type(kind.target)("in_domain"), target_weights=None)
        config = make_run(**{"steps": STEPS, "batch_size": 8, "checkpoints": [1.0], **changes})
        place = tmp_path / folder
        return call(processes.generator, place, kind, target, latents, images, size, config, *more)

    return run


def _with(config: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(config, **changes)


def alone(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """One process, this one."""
    return [function(*arguments)]


def same(found: Any, expected: Any, curve: float = RELATIVE) -> None:
    """Two results of training agree, and learning took place."""
    (ours, our_weights), (theirs, their_weights) = found, expected
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for name in theirs[-1]:
        values = [[row[name] for row in each] for each in (ours, theirs)]
        np.testing.assert_allclose(*values, rtol=curve, atol=1e-7, err_msg=name)
    assert our_weights.keys() == their_weights.keys()


@pytest.mark.parametrize(
    ("name", "micro"),
    [("sit", 4), ("maskgit", None), ("dit", None), ("repa", None), ("sit", None), ("maskgit", 4)],
)
def test_a_generator_learns_the_same(
    several: Processes, train: Callable[..., Any], name: str, micro: int | None
) -> None:
    (expected,) = train(alone, name, "one", micro_batch_size=micro)
    found = train(several, name, "many", micro_batch_size=micro)
    assert all(each[0] == found[0][0] for each in found)
    same(found[0], expected)
    losses = [row["loss"] for row in expected[0]]
    assert np.mean(losses[-20:]) < np.mean(losses[:10])


@pytest.mark.parametrize("name", [pytest.param("sit", marks=pytest.mark.slow), "repa"])
def test_a_generator_in_parts_learns_the_same_and_goes_on_whole(
    several: Processes, train: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    (expected,) = train(alone, name, "whole", micro_batch_size=4)
    keep = tmp_path / "work" / "state"
    first = train(partial(several, shard=True), name, "b", keep, 10, micro_batch_size=4)[0][0]
    second = train(alone, name, "b", keep, 20, micro_batch_size=4)[0][0]
    rest, weights = train(partial(several, shard=True), name, "b", keep, micro_batch_size=4)[0]
    assert (second[0]["step"], rest[0]["step"]) == (10, 20)
    same((first[:9] + second[:10] + rest, weights), expected)


@pytest.mark.parametrize(("before", "after"), [("many", "one"), ("one", "many")])
def test_a_run_goes_on_with_another_number_of_processes(
    several: Processes, train: Callable[..., Any], tmp_path: Path, before: str, after: str
) -> None:
    (expected,) = train(alone, "sit", "whole")
    calls, keep = {"one": alone, "many": several}, tmp_path / "work" / "state"
    first = train(calls[before], "sit", "b", keep, 23)[0][0]
    rest, weights = train(calls[after], "sit", "b", keep)[0]
    # The last state is from before the last step.
    assert rest[0]["step"] == 23
    same((first[:22] + rest, weights), expected)


@pytest.mark.parametrize(
    ("family", "adversarial", "rate"),
    [(Family.tiny, 0.5, 1e-4), (Family.kl, 0.0, 1e-6), (Family.vq, 0.0, 1e-6)],
)
def test_an_autoencoder_learns_the_same(
    several: Processes,
    make_autoencoder: Callable[[Family], Autoencoder],
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_arm: Callable[..., ArmConfig],
    make_training: Callable[..., AutoencoderTrainingConfig],
    tmp_path: Path,
    family: Family,
    adversarial: float,
    rate: float,
) -> None:
    # kl and vq this small multiply any rounding, above all of images of few pixels, and with a
    # discriminator even more: weights that differ by 1e-7 at the start part as fast.
    config = make_training(
        steps=STEPS,
        batch_size=8,
        learning_rate=rate,
        adversarial_weight=adversarial,
        adversarial_start=10,
        codebook_start=5 if family is Family.vq else 0,
    )
    arm = None if family is Family.kl else make_arm(low_resolution_probability=0.25)
    given = (images, config, arm, Views(perceptual))
    (expected,) = alone(processes.autoencoder, make_autoencoder(family), *given)
    found = several(processes.autoencoder, make_autoencoder(family), *given)
    for _, weights in found[1:]:
        assert all(np.array_equal(weights[name], value) for name, value in found[0][1].items())
    same(found[0], expected)
    several(processes.autoencoder, make_autoencoder(family), *given, tmp_path / "a" / "b", 17)
    (rest,) = alone(processes.autoencoder, make_autoencoder(family), *given, tmp_path / "a" / "b")
    same(rest, (expected[0][-len(rest[0]) :], expected[1]))


def test_an_adversary_of_kl_acts_alike_in_its_first_steps(
    several: Processes,
    kl: Autoencoder,
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_arm: Callable[..., ArmConfig],
    make_training: Callable[..., AutoencoderTrainingConfig],
) -> None:
    config = make_training(steps=4, batch_size=8, learning_rate=1e-5, separate_draws=True)
    given = (images, config, make_arm(low_resolution_probability=0.25), Views(perceptual))
    found = several(processes.autoencoder, kl, *given)
    (expected,) = alone(processes.autoencoder, kl, *given)
    same(found[0], expected)
    assert all(row["discriminator"] > 0 for row in expected[0])


@pytest.mark.parametrize("family", [Family.kl, Family.vq])
def test_cached_latents_are_the_same(
    several: Processes,
    make_autoencoder: Callable[[Family], Autoencoder],
    images: np.ndarray,
    labels: np.ndarray,
    tmp_path: Path,
    family: Family,
) -> None:
    network, keep = make_autoencoder(family), tmp_path / "work" / "state"
    (expected,) = alone(processes.cache, tmp_path / "one", network, images, labels)
    specs = several(processes.cache, tmp_path / "many", network, images, labels)
    several(processes.cache, tmp_path / "again", network, images, labels, keep, 1)
    specs += alone(processes.cache, tmp_path / "again", network, images, labels, keep)
    for folder in ("many", "again"):
        names = sorted(file.name for file in (tmp_path / "one").iterdir())
        assert sorted(file.name for file in (tmp_path / folder).iterdir()) == names
        for name in names:
            if name != "index.json":
                content = (tmp_path / folder / name).read_bytes()
                assert content == (tmp_path / "one" / name).read_bytes(), name
    for spec in specs:
        np.testing.assert_allclose([*spec.mean, *spec.std], [*expected.mean, *expected.std], 1e-12)
        assert _with(spec, mean=[], std=[]) == _with(expected, mean=[], std=[])


@pytest.fixture
def extractor() -> Callable[[], FeatureExtractor]:
    return partial(_extractor)


def _extractor() -> FeatureExtractor:
    torch.manual_seed(1)
    network: InDomainNetwork = build_network("plain", [4, 8], 8, 4).eval().requires_grad_(False)
    return FeatureExtractor("in_domain", network, CPU)


@pytest.mark.parametrize(("name", "method"), [("sit", "euler_maruyama"), ("maskgit", "confidence")])
@pytest.mark.parametrize("count", [1, 10, 23])
def test_samples_and_their_features_are_the_same_bit_for_bit(
    several: Processes,
    spec: LatentSpec,
    token_spec: LatentSpec,
    backbone: BackboneConfig,
    awaken: Callable[[nn.Module], nn.Module],
    extractor: Callable[[], FeatureExtractor],
    name: str,
    method: str,
    count: int,
) -> None:
    from study.config import SamplerConfig, load_group

    sampler = load_group(SamplerConfig, "sampler", method)
    assert sampler.method is SamplingMethod(method)
    kind, tokens = generator_group(name), name == "maskgit"
    assert kind.objective is Objective(name)
    size, shape = (_with(backbone, patch_size=1), token_spec) if tokens else (backbone, spec)
    network = awaken(build_objective(kind).build(size, shape)).eval().requires_grad_(False)
    given = (network, kind, shape, np.arange(count) % 4, sampler, extractor)
    (expected,) = alone(processes.samples, *given)
    found = several(processes.samples, *given)
    assert found[1:] == [None] * (several.world - 1)
    assert np.array_equal(found[0][0], expected[0])
    for part, value in asdict(expected[1]).items():
        assert np.array_equal(getattr(found[0][1], part), value)


def test_reconstructions_are_the_same_bit_for_bit(
    several: Processes, kl: Autoencoder, images: np.ndarray, extractor: Callable[[], Any]
) -> None:
    (expected,) = alone(processes.reconstructed, kl, images, extractor)
    found = several(processes.reconstructed, kl, images, extractor)[0]
    for part, value in asdict(expected).items():
        assert np.array_equal(getattr(found, part), value)


def test_processes_know_of_each_other(several: Processes) -> None:
    world = several.world
    found = several(processes.facts, 8)
    assert [each[0] for each in found] == list(range(world))
    assert sorted(row for each in found for row in each[2]) == list(range(8))
    assert found[0][2] == {2: [0, 1, 4, 5], 4: [0, 4]}[world]
    for _, size, _, agreed, mean, _, told in found:
        assert (size, agreed, mean, told) == (world, True, (world - 1) / 2, "from 0")
    assert [each[5] for each in found] == [list(range(world)), *[[]] * (world - 1)]


def test_a_process_alone_is_the_leader_of_none() -> None:
    assert processes.facts(8) == (0, 1, list(range(8)), False, 0.0, [0], "from 0")


def test_a_batch_that_cannot_be_shared_is_refused(
    several: Processes, train: Callable[..., Any]
) -> None:
    rule = f"batch_size = 9: must be a multiple of the number of processes, {several.world}"
    with pytest.raises(ConfigError, match=rule):
        train(several, "sit", "many", batch_size=9)


@pytest.mark.parametrize("given", ["0", "two", "-1", "1.5"])
def test_a_number_of_processes_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("STUDY_PROCESSES", given)
    with pytest.raises(ConfigError, match=f"STUDY_PROCESSES = '{given}': must be a number from 1"):
        wanted()


def test_no_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("STUDY_PROCESSES", "gpu")
    assert wanted() == 2
    monkeypatch.setenv("STUDY_PROCESSES", "3")
    with pytest.raises(ConfigError, match="STUDY_PROCESSES = 3: must be at most the number of"):
        wanted()


MEMBER = """
import sys, time
from pathlib import Path
from study import distributed
from study.command import die_with_parent, one_line_errors
from study.keeper import Keeper
die_with_parent()
folder = Path(sys.argv[1])
with one_line_errors(), distributed.joined():
    rank = distributed.rank()
    with Keeper(folder / "a" / "b", every_s=3600) as keeper:
        for step in range(10**6):
            if keeper.due:
                keeper.save({"step": step})
            if step == 3:
                (folder / f"ready-{rank}").write_text(str(__import__("os").getpid()))
            if step > 3 and rank == 1 and (folder / "crash").exists():
                raise SystemExit(7)
            time.sleep(0.01)
"""
LAUNCHER = """
import sys
from study.command import die_with_parent
from study.launch import launch
die_with_parent()
sys.exit(launch(2, ["-c", sys.argv[1], sys.argv[2]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a feature of the Linux kernel")
@pytest.mark.parametrize(
    "way",
    ["SIGTERM", "crash", *(pytest.param(s, marks=pytest.mark.slow) for s in ("SIGINT", "SIGKILL"))],
)
def test_no_process_is_left_behind_and_the_state_is_kept(tmp_path: Path, way: str) -> None:
    command = [sys.executable, "-c", LAUNCHER, MEMBER, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as launcher:
        assert launcher.stderr is not None
        ready = [tmp_path / f"ready-{rank}" for rank in (0, 1)]
        _wait(lambda: all(file.exists() and file.read_text() for file in ready), 90)
        members = [int(file.read_text()) for file in ready]
        if way == "crash":
            (tmp_path / "crash").touch()
        else:
            launcher.send_signal(signal.Signals[way])
        expected = {"SIGTERM": 143, "SIGINT": 130, "SIGKILL": -9, "crash": 7}[way]
        assert launcher.wait(40) == expected
        _wait(lambda: not any(_alive(pid) for pid in members), 20)
        text = launcher.stderr.read()
    states = sorted((tmp_path / "a" / "b").glob("state-*.pt"))
    assert len(states) == (way != "crash"), text
    assert "Traceback" not in text, text


def _wait(condition: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
        return state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
