"""Steps recorded as CUDA graphs change nothing; on the CPU nothing is recorded."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.autoencoders.models import Autoencoder
from study.autoencoders.monitor import Monitor, Views
from study.autoencoders.train import train_autoencoder
from study.command import device, place
from study.config import ArmConfig, AutoencoderTrainingConfig, Family, Precision
from study.evaluation.networks.perceptual import PerceptualDistance
from study.keeper import Keeper
from study.recorded import Recorded, adam, set_rate


class Interrupted(Exception):
    """The process ended here."""


@pytest.mark.gpu
@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("precision", list(Precision))
def test_recorded_steps_are_those_that_run_plainly(
    make_autoencoder: Callable[[Family], Autoencoder],
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_arm: Callable[..., ArmConfig],
    make_training: Callable[..., AutoencoderTrainingConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    family: Family,
    precision: Precision,
) -> None:
    # 25 variants of a step, of which most come more than twice; and those without a discriminator.
    config = make_training(steps=120, adversarial_start=20, monitor_points=2, precision=precision)
    arm = make_arm(low_resolution_probability=0.25)
    frozen = perceptual.to(device())

    def train(stop: int | None = None) -> tuple[dict[str, Tensor], dict[int, dict[str, float]]]:
        def steps(span: range) -> Iterator[int]:
            for step in span:
                if step == stop:
                    raise Interrupted
                yield step

        log: dict[int, dict[str, float]] = {}
        autoencoder = place(make_autoencoder(family))
        views = Views(frozen, monitor=Monitor(images[:4], frozen, 0.5))
        keeper = Keeper(tmp_path / "a" / "b", every_s=0) if stop else None
        train_autoencoder(
            autoencoder, images, config, arm, views, 0, log.__setitem__, steps, keeper
        )
        return autoencoder.state_dict(), log

    recorded, log = train()
    with pytest.raises(Interrupted):
        train(stop=70)
    resumed, _ = train(stop=1000)
    monkeypatch.setenv("STUDY_CUDA_GRAPHS", "0")
    plain, expected = train()
    assert log == expected
    for name, value in plain.items():
        assert torch.equal(value, recorded[name]), name
        assert torch.equal(value, resumed[name]), name


def test_on_the_cpu_every_step_runs() -> None:
    calls = []

    def step(variant: int, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        calls.append(variant)
        return {"sum": inputs[0].sum() * variant}

    recorded = Recorded(step, torch.device("cpu"))
    results = [float(recorded(variant, torch.ones(3))["sum"]) for variant in (1, 2, 2, 2)]
    assert (calls, results) == ([1, 2, 2, 2], [3.0, 6.0, 6.0, 6.0])


@pytest.mark.parametrize("rate", [0.1, 0.02])
def test_the_learning_rate_of_a_step_is_the_one_set(rate: float) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimiser = adam([weight], 1.0, (0.5, 0.9))
    weight.grad = torch.ones(2)
    set_rate(optimiser, rate)
    optimiser.step()
    # Adam's first step is as long as its rate.
    assert weight.tolist() == pytest.approx([1 - rate] * 2)
