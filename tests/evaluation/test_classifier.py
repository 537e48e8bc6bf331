from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from study.config import StudyError, TrainNetworkConfig
from study.evaluation.classifier import _augment, accuracy, train_classifier
from study.evaluation.networks.in_domain import InDomainNetwork, build_network

CONFIG = TrainNetworkConfig(steps=15, batch_size=16, learning_rate=1e-2, weight_decay=0.01)


@pytest.fixture
def shades() -> tuple[np.ndarray, np.ndarray]:
    """Images of class 0 are dark, of class 1 bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(32) % 2
    noise = rng.integers(0, 60, (32, 3, 16, 16))
    return (noise + 180 * labels[:, None, None, None]).astype(np.uint8), labels


@pytest.fixture
def fit(shades: tuple[np.ndarray, np.ndarray]) -> Callable[..., InDomainNetwork]:
    def run(
        seed: int = 0,
        config: TrainNetworkConfig = CONFIG,
        log: Callable[[int, dict[str, float]], None] = lambda *_: None,
    ) -> InDomainNetwork:
        torch.manual_seed(0)
        network = build_network("plain", [4, 8], 8, 2)
        train_classifier(network, *shades, config, seed, log)
        return network

    return run


def test_it_learns_to_tell_dark_from_bright(
    fit: Callable[..., InDomainNetwork], shades: tuple[np.ndarray, np.ndarray]
) -> None:
    losses: list[float] = []
    network = fit(log=lambda step, values: losses.append(values["loss"]))
    assert losses[-1] < 0.7 * losses[0]
    assert accuracy(network, *shades) == 1
    assert not network.training


def test_same_seed_gives_the_same_weights(fit: Callable[..., InDomainNetwork]) -> None:
    one, two, other = (fit(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not torch.equal(one["classify.weight"], other["classify.weight"])


@pytest.mark.parametrize(
    "changes", [{"steps": 10}, {"batch_size": 8}, {"learning_rate": 2e-2}, {"weight_decay": 0.5}]
)
def test_every_training_parameter_matters(
    fit: Callable[..., InDomainNetwork], changes: dict[str, Any]
) -> None:
    base, other = fit(), fit(config=replace(CONFIG, **changes))
    assert not torch.equal(base.classify.weight, other.classify.weight)


def test_a_loss_that_is_not_finite_ends_training(shades: tuple[np.ndarray, np.ndarray]) -> None:
    network = build_network("plain", [4, 8], 8, 2)
    with torch.no_grad():
        network.classify.weight.fill_(torch.nan)
    with pytest.raises(StudyError, match="step 0: loss = nan: must be finite"):
        train_classifier(network, *shades, CONFIG, 0, lambda *_: None)


def test_accuracy_is_the_share_of_right_guesses(network: InDomainNetwork) -> None:
    with torch.no_grad():
        network.classify.weight.zero_()
        network.classify.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    images = np.zeros((8, 3, 16, 16), dtype=np.uint8)
    assert accuracy(network, images, np.array([1, 1, 1, 0, 2, 3, 0, 0])) == 3 / 8


def test_accuracy_does_not_depend_on_batches(network: InDomainNetwork) -> None:
    images = np.zeros((300, 3, 16, 16), dtype=np.uint8)
    guess = int(network(torch.full((1, 3, 16, 16), -1.0)).argmax())
    assert accuracy(network, images, np.full(300, guess)) == 1


def test_augmentation_shifts_and_flips_only() -> None:
    # A bright column on black: it may move by up to an eighth of 16 pixels, and be mirrored.
    images = torch.zeros(64, 3, 16, 16)
    images[..., 6] = 1
    rng = np.random.default_rng(0)
    places = set()
    for _ in range(40):
        moved = _augment(images, rng)
        assert moved.shape == images.shape
        found = moved.amax((1, 2)).argmax(1)
        assert torch.equal(moved[..., 0, :].sum((1, 2)), torch.full((64,), 3.0))
        places |= set(found.tolist())
    assert places == {6 + s for s in range(-2, 3)} | {9 + s for s in range(-2, 3)}
