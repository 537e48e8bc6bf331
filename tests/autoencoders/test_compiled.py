"""Compiled networks train as they are written, whichever size comes first."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder
from study.autoencoders.monitor import Monitor, Views
from study.autoencoders.train import train_autoencoder
from study.config import ArmConfig, AutoencoderTrainingConfig, Family
from study.evaluation.networks.perceptual import PerceptualDistance
from study.keeper import Keeper

# The compiler looks at gradients of tensors that have none.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


class Interrupted(Exception):
    """The process ended here."""


@pytest.mark.parametrize("family", [Family.kl, Family.tiny])
def test_compiled_training_is_that_of_the_code_and_resumes_bit_for_bit(
    make_autoencoder: Callable[[Family], Autoencoder],
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_arm: Callable[..., ArmConfig],
    make_training: Callable[..., AutoencoderTrainingConfig],
    tmp_path: Path,
    family: Family,
) -> None:
    arm = make_arm(low_resolution_probability=0.25)

    def train(
        compiled: bool, stop: int | None = None, keeper: Keeper | None = None
    ) -> tuple[dict[str, Tensor], dict[int, dict[str, float]]]:
        def steps(span: range) -> Iterator[int]:
            for step in span:
                if step == stop:
                    raise Interrupted
                yield step

        torch.compiler.reset()
        config = make_training(
            steps=12, learning_rate=1e-5, adversarial_start=3, monitor_points=2, compile=compiled
        )
        log: dict[int, dict[str, float]] = {}
        autoencoder = make_autoencoder(family)
        views = Views(perceptual, monitor=Monitor(images[:4], perceptual, 0.5))
        train_autoencoder(
            autoencoder, images, config, arm, views, 0, log.__setitem__, steps, keeper
        )
        return autoencoder.state_dict(), log

    _, written = train(False)
    weights, log = train(True)
    assert list(log) == list(written)
    for step, row in written.items():
        for name, value in row.items():
            # The adaptive weight divides by a gradient's norm, which enlarges rounding.
            rel = 0.02 if name == "adversarial" else 1e-3
            assert log[step][name] == pytest.approx(value, rel=rel, abs=1e-5), (step, name)
    keeper = Keeper(tmp_path / "a" / "b", every_s=0)
    with pytest.raises(Interrupted):
        train(True, 7, keeper)
    resumed, _ = train(True, None, keeper)
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())
