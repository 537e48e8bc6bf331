"""Controls of the schedule: what their files say is what differs, and what is loaded."""

from dataclasses import asdict, replace

import pytest

from study.config import Cell, SiTConfig, TrainGeneratorConfig, choices, generator_group, load
from study.config.stages import TrainGenerator
from study.stages.train_generator import training_of

CELL = Cell(
    profile="lab", data="imagenet20_128", autoencoder="taesd", arm="eq", seed=0,
    scaling="standardised", backbone="S_2",
)  # fmt: skip
LONG = "sit_steps_400"
CONTROLS = [name for name in choices("generator") if name.startswith("sit_") and name != LONG]


def training(name: str) -> tuple[SiTConfig, TrainGeneratorConfig]:
    config = load(TrainGenerator, replace(CELL, generator=name))
    assert isinstance(config.generator, SiTConfig)
    return config.generator, training_of(config)


def test_the_grid_of_shifts_and_rates_is_whole() -> None:
    found = {
        (config.time_shift, config.learning_rate_factor)
        for name in ("sit", *CONTROLS)
        if isinstance(config := generator_group(name), SiTConfig)
    }
    assert len(CONTROLS) == 8
    assert found == {(shift, rate) for shift in (0.5, 1.0, 2.0) for rate in (0.5, 1.0, 2.0)}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_differs_in_shift_and_rate_only(name: str) -> None:
    (plain, published), (control, changed) = training("sit"), training(name)
    assert replace(control, time_shift=1.0, learning_rate_factor=1.0) == plain
    assert changed.learning_rate == control.learning_rate_factor * published.learning_rate
    assert asdict(changed) | {"learning_rate": published.learning_rate} == asdict(published)


def test_the_long_run_differs_in_steps_only() -> None:
    (plain, published), (control, changed) = training("sit"), training(LONG)
    assert replace(control, steps_factor=1) == plain
    assert changed == replace(published, steps=4 * published.steps)


def test_other_generators_train_at_the_profiles_rate() -> None:
    config = load(TrainGenerator, replace(CELL, generator="dit"))
    assert training_of(config) == config.train_generator == training("sit")[1]
