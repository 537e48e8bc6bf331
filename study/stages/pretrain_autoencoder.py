"""Stage pretrain_autoencoder: a small KL or VQ autoencoder from scratch, on the training images."""

from functools import partial

import torch

from study import paths
from study.autoencoders.models import create_autoencoder
from study.autoencoders.train import train_autoencoder
from study.command import device, stage
from study.config.seeds import derive
from study.config.stages import PretrainAutoencoder
from study.data.store import PixelStore
from study.evaluation.networks import PerceptualDistance, load_network
from study.progress import track
from study.tracking import Run


def main(config: PretrainAutoencoder, run: Run) -> None:
    """Train without transforms and save in diffusers format."""
    seed = config.cell.seed or 0
    torch.manual_seed(derive(seed, "autoencoder", "weights"))
    autoencoder = create_autoencoder(config.autoencoder).to(device())
    run.family = autoencoder.family.value
    train_autoencoder(
        autoencoder,
        PixelStore(paths.store(config.cell)).images("train"),
        config.pretrain_autoencoder,
        None,
        PerceptualDistance(load_network(paths.network(config.cell, "perceptual"), device())),
        derive(seed, "pretrain"),
        run.log,
        partial(track, total=config.pretrain_autoencoder.steps, description="autoencoder"),
    )
    autoencoder.save(run.output())


if __name__ == "__main__":
    stage(main, __file__)
