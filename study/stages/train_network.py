"""Stage train_network: one in-domain network, by classifying the training images."""

from functools import partial

import torch

from study import paths
from study.command import device, stage
from study.config.seeds import derive
from study.config.stages import TrainNetwork
from study.data.store import PixelStore
from study.evaluation.classifier import accuracy, train_classifier
from study.evaluation.networks.in_domain import build_network, load_network, save_network
from study.keeper import check_weights
from study.progress import track
from study.tracking import Run


def main(config: TrainNetwork, run: Run) -> None:
    """Train, save in half precision, and measure what was saved on held-out images."""
    store = PixelStore(paths.store(config.cell))
    settings = config.network
    torch.manual_seed(derive(settings.seed, settings.role.value))
    network = build_network(
        settings.architecture, settings.widths, settings.features, store.num_classes
    )
    with run.keeper as keeper:
        train_classifier(
            network.to(device()),
            store.images("train"),
            store.labels("train"),
            config.train_network,
            settings.seed,
            run.log,
            partial(track, total=config.train_network.steps, description="classifier"),
            keeper,
        )
    check_weights(network, config.train_network.steps)
    folder = paths.network(config.cell, settings.role.value)
    save_network(network, settings, store.num_classes, folder)
    saved = load_network(folder, device())
    held_out = store.images("validation")
    share = accuracy(saved, held_out, store.labels("validation"))
    run.record("accuracy", share, n=len(held_out))


if __name__ == "__main__":
    stage(main, __file__)
