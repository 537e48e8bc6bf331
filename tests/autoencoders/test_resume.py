"""A run that was interrupted ends as one that was not, bit for bit."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from study.autoencoders.models import Autoencoder
from study.autoencoders.monitor import Monitor, Views
from study.autoencoders.train import train_autoencoder
from study.config import ArmConfig, AutoencoderTrainingConfig, Family, StudyError
from study.evaluation.networks.perceptual import PerceptualDistance
from study.keeper import Keeper

Log = dict[int, dict[str, float]]


class Interrupted(Exception):
    """The process ended here."""


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("stops", [[2], [1, 5], [0, 3, 6]])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    make_autoencoder: Callable[[Family], Autoencoder],
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_arm: Callable[..., ArmConfig],
    make_training: Callable[..., AutoencoderTrainingConfig],
    tmp_path: Path,
    family: Family,
    stops: list[int],
) -> None:
    # The discriminator and, for vq, the codebook start on the way; 7 is no multiple of a point.
    start = 1 if family is Family.vq else 0
    config = make_training(steps=7, adversarial_start=2, monitor_points=3, codebook_start=start)
    arm = make_arm(low_resolution_probability=0.25)

    def train(stop: int | None, kept: Keeper | None, log: Log) -> Autoencoder:
        def steps(span: range) -> Iterator[int]:
            for step in span:
                if step == stop:
                    raise Interrupted
                yield step

        autoencoder = make_autoencoder(family)
        views = Views(perceptual, monitor=Monitor(images[:4], perceptual, 0.5))
        train_autoencoder(autoencoder, images, config, arm, views, 0, log.__setitem__, steps, kept)
        return autoencoder

    undisturbed: Log = {}
    expected = train(None, None, undisturbed).state_dict()
    log: Log = {}
    for stop in stops:
        with pytest.raises(Interrupted):
            train(stop, Keeper(tmp_path / "a" / "b", every_s=0), log)
    found = train(None, Keeper(tmp_path / "a" / "b", every_s=0), log).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert log == undisturbed


def test_a_state_that_is_not_finite_is_not_kept(
    make_autoencoder: Callable[[Family], Autoencoder],
    images: np.ndarray,
    perceptual: PerceptualDistance,
    make_training: Callable[..., AutoencoderTrainingConfig],
    tmp_path: Path,
) -> None:
    autoencoder = make_autoencoder(Family.kl)
    keeper = Keeper(tmp_path / "a" / "b", every_s=0)
    config = make_training(steps=500)

    def steps(span: range) -> Iterator[int]:
        for step in span:
            if step == 2:
                with torch.no_grad():
                    autoencoder.last_layer().fill_(torch.nan)
            yield step

    with pytest.raises(StudyError, match=r"step 2: weight .* must be finite"):
        train_autoencoder(
            autoencoder, images, config, None, Views(perceptual), 0, lambda *_: None, steps, keeper
        )
    kept = Keeper(tmp_path / "a" / "b").restore()
    assert kept is not None
    assert kept["step"] == 1
    assert all(value.isfinite().all() for value in kept["autoencoder"].values())
