"""Training of the in-domain networks: classification of the study's own training images."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.nn import functional

from study.config import StudyError, TrainNetworkConfig
from study.config.seeds import derive
from study.data.store import to_float
from study.evaluation.networks.in_domain import InDomainNetwork
from study.keeper import Keeper, check_weights

LABEL_SMOOTHING = 0.1
"""Keeps features from collapsing onto class means, blind to differences within a class."""


def train_classifier(
    network: InDomainNetwork,
    images: np.ndarray,
    labels: np.ndarray,
    config: TrainNetworkConfig,
    seed: int,
    log: Callable[[int, dict[str, float]], None],
    steps: Callable[[range], Iterable[int]] = iter,
    keeper: Keeper | None = None,
) -> None:
    """Train in place: AdamW, one-cycle rate, horizontal flips and shifts of up to an eighth.

    Args:
        network: left in eval mode.
        images: uint8 N 3 H W.
        labels: N.
        config: optimisation.
        seed: data order and augmentation.
        log: called with step and loss.
        steps: wraps the step range for progress.
        keeper: keeps the state on the way, and has that of an earlier start; None: nothing is kept.

    Raises:
        StudyError: the loss or a weight is not finite.
    """
    device = next(network.parameters()).device
    optimiser = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.steps + 1
    )
    network.train()
    total, since = 0.0, 0
    keeper = keeper or Keeper()
    first = 0
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    if kept := keeper.restore():
        for name, part in parts.items():
            part.load_state_dict(kept[name])
        first, total, since = kept["step"], kept["total"], kept["since"]
    for step in steps(range(first, config.steps)):
        if keeper.due:
            check_weights(network, step)
            state = {name: part.state_dict() for name, part in parts.items()}
            keeper.save({**state, "step": step, "total": total, "since": since})
        rng = np.random.default_rng(derive(seed, "network", step))
        chosen = np.sort(rng.integers(len(images), size=config.batch_size))
        batch = _augment(to_float(torch.from_numpy(images[chosen]).to(device)), rng)
        truth = torch.from_numpy(labels[chosen]).to(device)
        loss = functional.cross_entropy(network(batch), truth, label_smoothing=LABEL_SMOOTHING)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        total, since = total + float(loss.detach()), since + 1
        if since == max(1, config.steps // 50) or step + 1 == config.steps:
            if not math.isfinite(total):
                raise StudyError(f"step {step}: loss = {total}: must be finite")
            log(step + 1, {"loss": total / since})
            total, since = 0.0, 0
    network.eval()


def _augment(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    flips = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device).view(-1, 1, 1, 1)
    images = torch.where(flips, images.flip(-1), images)
    most = images.shape[-1] // 8
    down, right = rng.integers(-most, most + 1, size=2)
    padded = functional.pad(images, [most] * 4, mode="reflect")
    height, width = images.shape[-2:]
    return padded[..., most + down :, most + right :][..., :height, :width]


@torch.inference_mode()
def accuracy(network: InDomainNetwork, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of held-out images classified correctly."""
    device = next(network.parameters()).device
    right = 0
    for first in range(0, len(images), 256):
        batch = to_float(torch.from_numpy(np.array(images[first : first + 256]))).to(device)
        guess = network(batch).argmax(1).cpu().numpy()
        right += int((guess == labels[first : first + 256]).sum())
    return right / len(images)
