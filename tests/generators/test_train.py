from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from study.config import BackboneConfig, GeneratorConfig, Scaling, TrainGeneratorConfig
from study.generators.common import Batch, GeneratorObjective
from study.generators.objectives import build_objective
from study.generators.targets import InDomainTarget
from study.generators.train import MovingAverage, checkpoint_steps, train_generator
from study.latents import LatentCache

CPU = torch.device("cpu")
MakeRun = Callable[..., TrainGeneratorConfig]
Log = list[dict[str, float]]


class Trainer:
    """Trains a generator by name in a folder of its own; keeps the log of the last run."""

    def __init__(self, folder: Path, **parts: Any) -> None:
        self.folder, self.parts, self.runs = folder, parts, 0
        self.log: Log = []

    def objective(self, name: str) -> GeneratorObjective:
        return build_objective(self.parts["generators"][name], self.parts["target"])

    def __call__(
        self,
        config: TrainGeneratorConfig,
        name: str = "sit",
        seed: int = 0,
        scaling: Scaling = Scaling.standardised,
        objective: GeneratorObjective | None = None,
    ) -> dict[str, Tensor]:
        self.runs, self.log = self.runs + 1, []
        folder = self.folder / str(self.runs)
        tokens = name == "maskgit"
        index = train_generator(
            folder,
            objective or self.objective(name),
            self.parts["token_cache" if tokens else "latent_cache"],
            self.parts["images"],
            self.parts["token_backbone" if tokens else "backbone"],
            config,
            scaling,
            seed,
            CPU,
            lambda step, values: self.log.append({"step": step, **values}),
        )
        return load_file(folder / index.checkpoints[-1].file)


@pytest.fixture
def trained(
    tmp_path: Path,
    generators: dict[str, GeneratorConfig],
    target: InDomainTarget,
    latent_cache: LatentCache,
    token_cache: LatentCache,
    images: np.ndarray,
    backbone: BackboneConfig,
    token_backbone: BackboneConfig,
) -> Trainer:
    return Trainer(
        tmp_path / "runs",
        generators=generators,
        target=target,
        latent_cache=latent_cache,
        token_cache=token_cache,
        images=images,
        backbone=backbone,
        token_backbone=token_backbone,
    )


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(v, two[k]) for k, v in one.items())


@pytest.mark.parametrize("name", ["dit", "sit", "repa", "maskgit"])
def test_same_seed_gives_the_same_weights(trained: Trainer, make_run: MakeRun, name: str) -> None:
    first = trained(make_run(), name)
    torch.rand(3)
    assert equal(trained(make_run(), name), first)
    assert not equal(trained(make_run(), name, seed=1), first)


def test_training_leaves_the_global_random_state_alone(trained: Trainer, make_run: MakeRun) -> None:
    before = torch.get_rng_state()
    trained(make_run())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["dit", "sit", "repa", "maskgit"])
def test_the_loss_falls(trained: Trainer, make_run: MakeRun, name: str) -> None:
    trained(make_run(steps=40, batch_size=32, learning_rate=1e-2, label_dropout=0.0), name)
    losses = [row["loss"] for row in trained.log]
    assert len(losses) == 40
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:3])


def test_the_logged_loss_is_the_weighted_sum_of_terms(trained: Trainer, make_run: MakeRun) -> None:
    trained(make_run(), "repa")
    for row in trained.log:
        assert row["loss"] == pytest.approx(row["velocity"] + 0.5 * row["projection"], rel=1e-5)


def test_the_rate_warms_up(trained: Trainer, make_run: MakeRun) -> None:
    trained(make_run(warmup_steps=4, steps=6))
    rates = [row["learning_rate"] for row in trained.log]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3])


def test_checkpoints_are_kept_at_the_listed_steps(trained: Trainer, make_run: MakeRun) -> None:
    index = train_generator(
        trained.folder,
        trained.objective("sit"),
        trained.parts["latent_cache"],
        None,
        trained.parts["backbone"],
        make_run(steps=5, checkpoints=[0.2, 0.6, 1.0]),
        Scaling.fixed,
        0,
        CPU,
        lambda *_: None,
    )
    assert [(c.step, c.images_seen) for c in index.checkpoints] == [(1, 8), (3, 24), (5, 40)]
    files = {c.file for c in index.checkpoints}
    assert {path.name for path in trained.folder.iterdir()} == files | {"index.json"}
    assert index.scaling is Scaling.fixed


def test_checkpoint_steps_are_rounded_and_at_least_one(make_run: MakeRun) -> None:
    config = make_run(steps=10, checkpoints=[0.01, 0.26, 0.3, 1.0])
    assert checkpoint_steps(config) == [1, 3, 10]


def test_an_earlier_checkpoint_is_that_of_a_longer_run(trained: Trainer, make_run: MakeRun) -> None:
    half = trained(make_run(steps=2, checkpoints=[1.0]))
    trained(make_run(steps=4, checkpoints=[0.5, 1.0]))
    assert equal(load_file(trained.folder / "2" / "checkpoint-00000002.safetensors"), half)


class Failing:
    """An objective whose loss is not finite from the third step on; remembers seeds."""

    needs_images = False

    def __init__(self, inner: GeneratorObjective, failure: int = 3) -> None:
        self.inner, self.calls, self.failure = inner, 0, failure
        self.build, self.sample, self.weights = inner.build, inner.sample, inner.weights
        self.seeds: list[int] = []

    def terms(
        self, network: nn.Module, batch: Batch, numbers: torch.Generator
    ) -> dict[str, Tensor]:
        self.calls += 1
        self.seeds.append(numbers.initial_seed())
        scale = torch.nan if self.calls >= self.failure else 1
        terms = self.inner.terms(network, batch, numbers)
        return {name: term * scale for name, term in terms.items()}


def test_a_loss_that_is_not_finite_ends_the_run(trained: Trainer, make_run: MakeRun) -> None:
    objective = Failing(trained.objective("sit"))
    with pytest.raises(RuntimeError, match="step 3: loss = nan: must be finite"):
        trained(make_run(), objective=objective)
    assert not (trained.folder / "1" / "index.json").exists()
    assert not (trained.folder / "1" / "checkpoint-00000004.safetensors").exists()


def test_every_step_has_its_noise_and_every_generator_the_same(
    trained: Trainer, make_run: MakeRun
) -> None:
    seeds = []
    for name in ("dit", "sit"):
        listening = Failing(trained.objective(name), failure=100)
        trained(make_run(), name, objective=listening)
        seeds.append(listening.seeds)
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 4


def lerp(config: TrainGeneratorConfig, steps: int, seen: Callable[[int], int]) -> float:
    """Average of a weight that jumps from 0 to 1."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = MovingAverage(network, config)
    nn.init.ones_(network.weight)
    for step in range(steps):
        average.update(10, seen(step))
    return float(next(average.network.parameters()))


def test_after_a_half_life_half_of_the_way_is_left(make_run: MakeRun) -> None:
    config = make_run(ema_half_life_images=200, ema_ramp=1.0)
    long = 10**6
    assert lerp(config, 20, lambda step: long) == pytest.approx(0.5, rel=1e-5)
    assert lerp(config, 60, lambda step: long) == pytest.approx(7 / 8, rel=1e-5)


def test_early_the_half_life_is_a_share_of_the_images_seen(make_run: MakeRun) -> None:
    config = make_run(ema_half_life_images=10**6, ema_ramp=0.05)
    # half-life 0.05 * 10 (n + 1) at a batch of 10: decay 2^(-20 / (n + 1))
    left = np.prod([0.5 ** (20 / (n + 1)) for n in range(50)])
    assert lerp(config, 50, lambda step: 10 * (step + 1)) == pytest.approx(1 - left, rel=1e-5)


def test_averaged_weights_are_not_the_trained_ones(trained: Trainer, make_run: MakeRun) -> None:
    slow, fast = (trained(make_run(ema_ramp=ramp)) for ramp in (1.0, 0.001))
    assert not equal(slow, fast)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 5},
        {"batch_size": 4},
        {"learning_rate": 2e-3},
        {"warmup_steps": 4},
        {"weight_decay": 0.5},
        {"label_dropout": 0.9},
        {"gradient_clip": 0.01},
        {"ema_half_life_images": 4},
        {"ema_ramp": 0.1},
    ],
)
def test_every_training_parameter_matters(
    trained: Trainer, make_run: MakeRun, changes: dict[str, float]
) -> None:
    base = trained(make_run(gradient_clip=0.5))
    assert not equal(base, trained(make_run(**{"gradient_clip": 0.5, **changes})))


def test_scaling_matters(trained: Trainer, make_run: MakeRun) -> None:
    base = trained(make_run())
    assert not equal(base, trained(make_run(), scaling=Scaling.fixed))


def test_raw_weights_are_kept_where_asked_for(trained: Trainer, make_run: MakeRun) -> None:
    average = trained(make_run(raw_weights=True))
    folder = trained.folder / "1"
    assert len(list(folder.glob("raw-*.safetensors"))) == 2
    last = load_file(folder / "raw-00000004.safetensors")
    assert last.keys() == average.keys()
    assert not equal(last, average)
    assert equal(trained(make_run()), average)
    assert not list((trained.folder / "2").glob("raw-*"))
