from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from study.config import StudyError, TrainNetworkConfig
from study.evaluation.network_objectives import Classification, VICReg, _augment
from study.evaluation.network_training import accuracy, neighbour_accuracy, train_network
from study.evaluation.networks.in_domain import InDomainNetwork, build_network
from study.keeper import Keeper

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
        train_network(Classification(network), *shades, config, seed, log)
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
    assert not torch.equal(
        base.get_parameter("classify.weight"), other.get_parameter("classify.weight")
    )


def test_a_loss_that_is_not_finite_ends_training(shades: tuple[np.ndarray, np.ndarray]) -> None:
    network = build_network("plain", [4, 8], 8, 2)
    with torch.no_grad():
        network.get_parameter("classify.weight").fill_(torch.nan)
    with pytest.raises(StudyError, match="step 0: loss = nan: must be finite"):
        train_network(Classification(network), *shades, CONFIG, 0, lambda *_: None)


def test_accuracy_is_the_share_of_right_guesses(network: InDomainNetwork) -> None:
    with torch.no_grad():
        network.get_parameter("classify.weight").zero_()
        network.get_parameter("classify.bias").copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
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


def unlabelled(
    images: np.ndarray, labels: np.ndarray, seed: int = 0, steps: int = 30
) -> tuple[InDomainNetwork, list[dict[str, float]]]:
    torch.manual_seed(0)
    network = build_network("bottleneck", [4, 8], 8, 0)
    logged: list[dict[str, float]] = []
    train_network(
        VICReg(network, 8),
        images,
        labels,
        replace(CONFIG, steps=steps),
        seed,
        lambda step, values: logged.append(values),
    )
    return network, logged


def test_a_network_learns_without_labels_and_does_not_look_at_them(
    shades: tuple[np.ndarray, np.ndarray],
) -> None:
    images, labels = shades
    network, logged = unlabelled(images, labels)
    assert set(logged[0]) == {"invariance", "variance", "covariance"}
    assert sum(logged[-1].values()) < 0.8 * sum(logged[0].values())
    assert not network.training
    other, _ = unlabelled(images, labels[::-1].copy())
    again = other.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in network.state_dict().items())
    assert neighbour_accuracy(network, images, labels, images, labels) == 1


def test_features_trained_without_labels_do_not_collapse(
    shades: tuple[np.ndarray, np.ndarray],
) -> None:
    network, _ = unlabelled(*shades)
    features = network.features(torch.from_numpy(shades[0]).float() / 127.5 - 1)
    assert float(features.detach().std(0).median()) > 0.05


def test_training_without_labels_resumes_bit_for_bit(
    shades: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    class Stopping(Keeper):
        """Keeps the state at step 3; then an earlier start is gone on with."""

        kept: dict[str, Any] | None = None

        @property
        def due(self) -> bool:
            return self.kept is None and self.step == 3

        def save(self, state: dict[str, Any]) -> None:
            torch.save(state, tmp_path / "state")
            self.kept = torch.load(tmp_path / "state")
            raise KeyboardInterrupt

        def restore(self) -> dict[str, Any] | None:
            return self.kept

        step = 0

    def run(keeper: Stopping) -> InDomainNetwork:
        torch.manual_seed(0)
        network = build_network("bottleneck", [4, 8], 8, 0)

        def counted(steps: range) -> Iterator[int]:
            for step in steps:
                keeper.step = step
                yield step

        config = replace(CONFIG, steps=6)
        train_network(VICReg(network, 8), *shades, config, 0, lambda *_: None, counted, keeper)
        return network

    keeper = Stopping()
    with pytest.raises(KeyboardInterrupt):
        run(keeper)
    resumed, whole = run(keeper).state_dict(), unlabelled(*shades, steps=6)[0].state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_neighbours_vote_on_the_class() -> None:
    network = build_network("plain", [4, 8], 8, 0).eval()
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 30, (24, 3, 16, 16)).astype(np.uint8)
    gallery = np.concatenate([dark, 255 - dark])
    labels = np.repeat([1, 0], 24)
    held_out = np.concatenate([dark[:300] + 1] * 12)
    truth = np.ones(len(held_out), dtype=int)
    assert neighbour_accuracy(network, gallery, labels, held_out, truth) == 1
    truth[:72] = 0
    assert neighbour_accuracy(network, gallery, labels, held_out, truth) == 0.75
