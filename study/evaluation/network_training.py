"""Training of the in-domain networks on the study's own training images."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from study.config import StudyError, TrainNetworkConfig
from study.config.seeds import derive
from study.data.store import to_float
from study.evaluation.network_objectives import Classification, VICReg
from study.evaluation.networks.in_domain import InDomainNetwork
from study.keeper import Keeper, check_weights

NEIGHBOURS = 20
"""Training images that vote on the class of a held-out one."""


def train_network(
    objective: Classification | VICReg,
    images: np.ndarray,
    labels: np.ndarray,
    config: TrainNetworkConfig,
    seed: int,
    log: Callable[[int, dict[str, float]], None],
    steps: Callable[[range], Iterable[int]] = iter,
    keeper: Keeper | None = None,
) -> None:
    """Train in place: AdamW, one-cycle rate, the sum of the objective's terms.

    Args:
        objective: its network is left in eval mode.
        images: uint8 N 3 H W.
        labels: N.
        config: optimisation.
        seed: data order and augmentation.
        log: called with step and terms.
        steps: wraps the step range for progress.
        keeper: keeps the state on the way, and has that of an earlier start; None: nothing is kept.

    Raises:
        StudyError: a term or a weight is not finite.
    """
    device = next(objective.parameters()).device
    optimiser = torch.optim.AdamW(
        objective.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.steps + 1
    )
    objective.train()
    total: dict[str, float] = {}
    keeper, first, since = keeper or Keeper(), 0, 0
    parts = {"objective": objective, "optimiser": optimiser, "schedule": schedule}
    if kept := keeper.restore():
        for name, part in parts.items():
            part.load_state_dict(kept[name])
        first, total, since = kept["step"], kept["total"], kept["since"]
    for step in steps(range(first, config.steps)):
        if keeper.due:
            check_weights(objective, step)
            state = {name: part.state_dict() for name, part in parts.items()}
            keeper.save({**state, "step": step, "total": total, "since": since})
        rng = np.random.default_rng(derive(seed, "network", step))
        chosen = np.sort(rng.integers(len(images), size=config.batch_size))
        batch = to_float(torch.from_numpy(images[chosen]).to(device))
        truth = torch.from_numpy(labels[chosen]).to(device)
        terms = objective(batch, truth, rng)
        optimiser.zero_grad(set_to_none=True)
        torch.stack([*terms.values()]).sum().backward()
        optimiser.step()
        schedule.step()
        total = {k: total.get(k, 0.0) + float(term.detach()) for k, term in terms.items()}
        since += 1
        if since == max(1, config.steps // 50) or step + 1 == config.steps:
            for name, value in total.items():
                if not math.isfinite(value):
                    raise StudyError(f"step {step}: {name} = {value}: must be finite")
            log(step + 1, {name: value / since for name, value in total.items()})
            total, since = {}, 0
    objective.eval()


def neighbour_accuracy(
    network: InDomainNetwork,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
) -> float:
    """Share of held-out images that have the commonest class of their nearest training images.

    Args:
        network: gives the features, which are compared by their cosine.
        gallery: training images.
        gallery_labels: their classes.
        images: held-out images.
        labels: their classes.
    """
    known, right = _directions(network, gallery), 0
    classes = np.arange(gallery_labels.max() + 1)
    for first in range(0, len(images), 256):
        part = slice(first, first + 256)
        cosines = _directions(network, images[part]) @ known.T
        nearest = cosines.topk(min(NEIGHBOURS, len(gallery)), dim=1).indices.cpu().numpy()
        votes = (gallery_labels[nearest][..., None] == classes).sum(1)
        right += int((votes.argmax(1) == labels[part]).sum())
    return right / len(images)


@torch.inference_mode()
def _directions(network: InDomainNetwork, images: np.ndarray) -> Tensor:
    device = next(network.parameters()).device
    batches = (
        to_float(torch.from_numpy(np.array(images[first : first + 256])).to(device))
        for first in range(0, len(images), 256)
    )
    return torch.cat([functional.normalize(network.features(batch), dim=1) for batch in batches])


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
