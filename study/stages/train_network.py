"""Stage train_network: one in-domain network, by classes or by views of the training images."""

from functools import partial

import torch

from study import paths
from study.command import device, stage
from study.config import Role
from study.config.seeds import derive
from study.config.stages import TrainNetwork
from study.data.store import PixelStore
from study.evaluation.network_objectives import Classification, VICReg
from study.evaluation.network_training import accuracy, neighbour_accuracy, train_network
from study.evaluation.networks.in_domain import build_network, load_network, save_network
from study.keeper import check_weights
from study.progress import track
from study.tracking import Run


def main(config: TrainNetwork, run: Run) -> None:
    """Train, save in half precision, and measure what was saved on held-out images."""
    store = PixelStore(paths.store(config.cell))
    settings = config.network
    unlabelled = settings.role is Role.extractor_self_supervised
    classes = 0 if unlabelled else store.num_classes
    torch.manual_seed(derive(settings.seed, settings.role.value))
    network = build_network(settings.architecture, settings.widths, settings.features, classes)
    objective = VICReg(network, settings.features) if unlabelled else Classification(network)
    images, labels = store.images("train"), store.labels("train")
    with run.keeper as keeper:
        train_network(
            objective.to(device()),
            images,
            labels,
            config.train_network,
            settings.seed,
            run.log,
            partial(track, total=config.train_network.steps, description="network"),
            keeper,
        )
    check_weights(network, config.train_network.steps)
    folder = paths.network(config.cell, settings.role.value)
    save_network(network, settings, classes, folder)
    saved = load_network(folder, device())
    held_out, truth = store.images("validation"), store.labels("validation")
    if unlabelled:
        share = neighbour_accuracy(saved, images, labels, held_out, truth)
    else:
        share = accuracy(saved, held_out, truth)
    run.record("accuracy", share, n=len(held_out))


if __name__ == "__main__":
    stage(main, __file__)
