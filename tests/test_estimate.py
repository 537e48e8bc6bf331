"""What is predicted from a few steps or images, on a clock that only moves with the work."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from study import estimate as estimating
from study import paths, probe
from study.clock import Clock
from study.commands import _ask
from study.config import (
    STAGES,
    AutoencoderTrainingConfig,
    Cell,
    ConfigError,
    StudyError,
    TrainGeneratorConfig,
)
from study.estimate import Estimate, shown, table
from study.grid import expand, read_profile
from study.probe import Probe, images, prepare, steps
from study.recorded import Recorded
from study.trials import grid_instances, kind_of

STARTUP_S, FIXED_S = 4.0, 2.0


class Simulated(Probe):
    """An instance whose steps and images take known times."""

    def __init__(self, clock: "Now", section: Any, **times: float) -> None:
        self.now, self.section, self.times = clock, section, times
        self.config = SimpleNamespace()
        self.stage, self.cell = "train_generator", Cell(profile="smoke")
        self.began, self.startup = 0.0, STARTUP_S
        self.now.value = STARTUP_S
        self.checkpoints = 1

    def time(self, changes: dict[str, Any], clock: Clock | None = None) -> float:
        began = self.now.value
        self.now.value += FIXED_S
        if clock is not None:
            turn = max(changes.get("adversarial_start", 0), changes.get("codebook_start", 0))
            for number in clock.track(range(changes["steps"])):
                self.now.value += self.times["early" if number < turn else "late"]
        else:
            self.now.value += self.times["image"] * self.count(changes)
        return self.now.value - began

    def count(self, changes: dict[str, Any]) -> int:
        known = [changes[name] for name in changes if name.endswith("images")]
        return sum(known) if known else changes["num_samples"] * self.checkpoints

    def size(self) -> int:
        return 100


class Now:
    """Seconds since the process began."""

    value = 0.0


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    clock = Now()
    monkeypatch.setattr(probe.time, "monotonic", lambda: clock.value)
    monkeypatch.setattr(probe.time, "time", lambda: clock.value)
    monkeypatch.setattr(probe, "synchronise", lambda: None)
    monkeypatch.setattr(probe, "monitor_seconds", lambda some: 0.0)
    return clock


def test_a_long_training_is_predicted_from_few_steps(
    now: Now, make_run: Callable[..., TrainGeneratorConfig]
) -> None:
    section = make_run(steps=100_000, warmup_steps=0)
    found = steps(Simulated(now, section, late=0.1, early=0.0))
    assert found["seconds"] == pytest.approx(STARTUP_S + FIXED_S + 10_000, rel=1e-6)
    assert now.value < 20
    assert found["bytes"] == 200  # Two checkpoints.


def test_a_short_training_is_timed_whole(
    now: Now, make_run: Callable[..., TrainGeneratorConfig]
) -> None:
    section = make_run(steps=4, checkpoints=[1.0])
    found = steps(Simulated(now, section, late=0.5, early=0.0))
    assert found["seconds"] == pytest.approx(STARTUP_S + FIXED_S + 2)
    assert now.value == found["seconds"]


class Untrained(Simulated):
    """An arm that adopts the weights as they are."""

    def time(self, changes: dict[str, Any], clock: Clock | None = None) -> float:
        self.now.value += FIXED_S
        return FIXED_S


def test_an_arm_without_steps_is_timed_whole(
    now: Now, make_training: Callable[..., AutoencoderTrainingConfig]
) -> None:
    found = steps(Untrained(now, make_training(steps=1000)))
    assert found == {"seconds": STARTUP_S + FIXED_S, "cold": STARTUP_S + FIXED_S, "bytes": 100}


def test_steps_before_the_discriminator_acts_are_timed_by_themselves(
    now: Now, make_training: Callable[..., AutoencoderTrainingConfig]
) -> None:
    section = make_training(steps=1000, adversarial_start=800, adversarial_weight=0.1)
    found = steps(Simulated(now, section, early=0.1, late=0.3))
    assert found["seconds"] == pytest.approx(STARTUP_S + FIXED_S + 80 + 60, rel=1e-6)


@pytest.mark.parametrize("total", [5, 6, 7, 9])
def test_few_steps_with_a_turn_are_enough(
    now: Now, make_training: Callable[..., AutoencoderTrainingConfig], total: int
) -> None:
    section = make_training(steps=total, adversarial_start=3, adversarial_weight=0.1)
    found = steps(Simulated(now, section, early=0.1, late=0.3))
    assert found["seconds"] == pytest.approx(STARTUP_S + FIXED_S + 0.3 + 0.3 * (total - 3))


class Variants(Simulated):
    """A training whose steps are of several variants; the first two of each take long."""

    def __init__(self, clock: Now, section: Any, variants: int) -> None:
        super().__init__(clock, section)
        self.variants = variants
        self.config.arm = SimpleNamespace(equivariance_probability=0.5 if variants > 1 else 0)

    def time(self, changes: dict[str, Any], clock: Clock | None = None) -> float:
        began = self.now.value
        self.now.value += FIXED_S
        recorded = Recorded(lambda variant, inputs: {}, torch.device("cpu"))
        recorded.on = True
        assert clock is not None
        for number in clock.track(range(changes["steps"])):
            variant = number % self.variants
            self.now.value += 0.02 if variant in recorded.recordings else 1.0
            recorded(variant)
        return self.now.value - began


def records_at_the_second_call(recorded: Recorded, variant: int) -> None:
    if recorded.seen[variant]:
        recorded.recordings[variant] = cast(Any, None)
    recorded.seen[variant] += 1


@pytest.mark.parametrize("variants", [1, 30])
def test_recorded_steps_are_predicted_from_their_replays(
    now: Now,
    make_training: Callable[..., AutoencoderTrainingConfig],
    monkeypatch: pytest.MonkeyPatch,
    variants: int,
) -> None:
    monkeypatch.setattr(Recorded, "__call__", records_at_the_second_call)
    section = make_training(steps=3000, adversarial_weight=0.0)
    found = steps(Variants(now, section, variants))
    spent = 2 * variants * 1.0 + (3000 - 2 * variants) * 0.02
    assert found["seconds"] == pytest.approx(STARTUP_S + FIXED_S + spent, rel=0.01)
    assert Recorded.__call__ is records_at_the_second_call


class Compiled(Simulated):
    """An instance whose first run takes 100 s more."""

    def time(self, changes: dict[str, Any], clock: Clock | None = None) -> float:
        first, self.compiled = not hasattr(self, "compiled"), True
        self.now.value += 100.0 * first
        return 100.0 * first + super().time(changes, clock)


def test_what_only_the_first_of_a_kind_compiles_is_told_apart(
    now: Now, make_run: Callable[..., TrainGeneratorConfig]
) -> None:
    section = make_run(steps=1000, warmup_steps=0)
    found = steps(Compiled(now, section, late=0.1, early=0.0))
    # Up to six seconds may be imports, which all of a kind make.
    assert found["seconds"] == pytest.approx(STARTUP_S + FIXED_S + 6 + 100, rel=1e-6)
    assert found["cold"] == pytest.approx(found["seconds"] + 94, rel=1e-6)


@contextmanager
def all_images(probe: Probe, count: int) -> Iterator[None]:
    yield


def test_images_are_predicted_from_two_amounts(now: Now, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "few_images", all_images)
    section = SimpleNamespace(num_images=50_000, intrinsic_dimension_images=[])
    simulated = Simulated(now, section, image=0.01)
    simulated.stage = "evaluate_autoencoder"
    monkeypatch.setattr(probe, "_fewer", lambda some, count, total, least: {"num_images": count})
    found = images(simulated, 50_000, 32, 2048)
    assert found["seconds"] == pytest.approx(STARTUP_S + FIXED_S + 500, rel=1e-6)
    assert now.value < 60


@pytest.fixture
def sampled(now: Now, monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Simulated]], Simulated]:
    """An instance that samples four checkpoints, 10,000 images each."""
    monkeypatch.setattr(probe, "few_images", all_images)
    monkeypatch.setattr(probe, "checkpoints_of", lambda some: 4)
    monkeypatch.setattr(
        probe, "keep_checkpoints", lambda some, count: setattr(some, "checkpoints", count)
    )
    monkeypatch.setattr(probe, "_fewer", lambda some, count, total, least: {"num_samples": count})

    def make(kind: type[Simulated]) -> Simulated:
        simulated = kind(now, SimpleNamespace(num_samples=10_000), image=0.02)
        simulated.stage = "evaluate_generator"
        return simulated

    return make


def test_every_checkpoint_is_sampled_anew(
    sampled: Callable[[type[Simulated]], Simulated],
) -> None:
    found = images(sampled(Simulated), 10_000, 32, 2048)
    assert found["seconds"] == pytest.approx(STARTUP_S + FIXED_S + 4 * 200, rel=0.01)


def test_no_checkpoint_but_the_first_is_compiled_for(
    sampled: Callable[[type[Simulated]], Simulated],
) -> None:
    found = images(sampled(Compiled), 10_000, 32, 2048)
    assert found["seconds"] == pytest.approx(STARTUP_S + FIXED_S + 6 + 4 * 200, rel=0.01)
    assert found["cold"] == pytest.approx(found["seconds"] + 94, rel=0.01)


class Shapes(Compiled):
    """An instance that compiles for every size of a batch, for 20 s."""

    def time(self, changes: dict[str, Any], clock: Clock | None = None) -> float:
        known = vars(self).setdefault("known", set())
        batch = changes.get("micro_batch_size", self.section.micro_batch_size)
        whole, rest = divmod(changes["num_samples"], batch)
        sizes = ({batch} if whole else set()) | ({rest} if rest else set())
        compiling = 20.0 * len(sizes - known)
        known |= sizes
        self.now.value += compiling
        return compiling + super().time(changes, clock)


@pytest.mark.parametrize("micro_batch_size", [24, 32, 500, 1500, 4000])
def test_compiled_code_is_timed_with_whole_batches(
    sampled: Callable[[type[Simulated]], Simulated], micro_batch_size: int
) -> None:
    simulated = sampled(Shapes)
    simulated.section = SimpleNamespace(
        num_samples=10_000, micro_batch_size=micro_batch_size, compile=True
    )
    found = images(simulated, 10_000, 32, 2048)
    assert found["seconds"] == pytest.approx(STARTUP_S + FIXED_S + 6 + 4 * 200, rel=0.01)


def test_the_store_grows_with_both_splits(now: Now) -> None:
    simulated = Simulated(now, SimpleNamespace(), image=0.01)
    found = prepare(simulated, {"train": 100_000, "validation": 5_000}, 32, 1000)
    assert found["seconds"] == pytest.approx(STARTUP_S + FIXED_S + 1050, rel=1e-6)
    assert found["bytes"] == pytest.approx(100 * 105_000 / 2000)


def made(**changes: Any) -> Estimate:
    given: dict[str, Any] = {
        "profile": "smoke",
        "digest": "",
        "seconds": {"prepare_data@a": 3600.0, "train_generator@b": 7200.0},
        "size": {"prepare_data@a": 1e9, "train_generator@b": 2e9},
        "done": ["prepare_data@a"],
        "dvc_s": 1.0,
        "recorded": {"prepare_data": 1.25, "all": 1.25},
        "needs": {"prepare_data@a": [], "train_generator@b": ["prepare_data@a"]},
    }
    return Estimate(**given | changes)


def test_the_table_has_hours_wall_clock_disk_price_and_what_has_run() -> None:
    lines = table(made(), 4, 2.5).splitlines()
    assert lines[1].split() == ["prepare_data", "1", "1", "60", "min", "0", "s", "1.25"]
    assert lines[-3] == "left: 2.00 hours of a worker; 2.0 h with 4"
    assert lines[-2].startswith("disk: 3.0 GB")
    assert lines[-1] == "price: 5.00 at 2.5 an hour of a worker"
    assert [shown(90), shown(600), shown(9000)] == ["90 s", "10 min", "2.5 h"]


def test_a_saved_estimate_holds_for_the_same_grid_profile_and_machine(
    params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.GRID.write_text("profile: smoke\n")
    monkeypatch.setattr(estimating, "changed", lambda: {"train_generator@b"})
    monkeypatch.setattr(
        estimating, "dependencies", lambda: {k: set(v) for k, v in made().needs.items()}
    )
    assert estimating.saved("smoke") is None
    file = paths.ROOT / "work" / "estimate" / "smoke.json"
    file.parent.mkdir(parents=True)
    kept = made(digest=estimating.digest_of("smoke"), done=[])
    file.write_text(estimating.json.dumps(estimating.asdict(kept)))
    found = estimating.saved("smoke")
    assert found is not None
    assert found.done == ["prepare_data@a"]
    profile = params / "profile" / "smoke.yaml"
    profile.write_text(profile.read_text() + "# edited\n")
    assert estimating.saved("smoke") is None


@pytest.mark.parametrize("profile", sorted(p.stem for p in paths.PARAMS.glob("profile/*.yaml")))
def test_every_instance_of_a_profile_that_runs_is_of_a_kind(profile: str) -> None:
    selected = expand(profile, read_profile(profile, {}))
    found = list(grid_instances(selected))
    assert [stage for stage, _, _ in found] == [s for s in STAGES for _ in selected[s]]
    assert [name for _, name, _ in found] == [name for s in STAGES for name in selected[s]]
    for stage, _, item in found:
        assert kind_of(stage, item, selected)[0] == stage
        assert Cell(**item).profile == profile


def test_what_the_check_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess("", 2, stderr="error: weights/taesd: no such folder\n")
    monkeypatch.setattr(estimating.subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(estimating, "dependencies", dict)
    monkeypatch.setattr(estimating, "changed", set)
    with pytest.raises(StudyError, match=r"^weights/taesd: no such folder$"):
        estimating.estimate(lambda text: None)


def test_a_grid_above_the_limit_is_refused_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "saved", lambda profile: made())
    _ask("smoke", 4, 2.0)
    with pytest.raises(ConfigError, match=r"smoke = 2\.00 hours: must be at most --limit 1\.5"):
        _ask("smoke", 4, 1.5)


@pytest.mark.parametrize(("few", "first"), [(True, 55), (False, 512)])
def test_images_of_a_distance_grow_to_their_number(few: bool, first: int) -> None:
    total = 18_492
    section = SimpleNamespace(degraded_images=2000)
    some: Any = SimpleNamespace(stage="reference_statistics", section=section, few=few)
    counts = [
        probe._fewer(some, count, total, 512)["degraded_images"] for count in (512, 2048, total)
    ]
    assert counts[0] == first
    assert counts[0] < counts[1] < counts[2] == 2000
