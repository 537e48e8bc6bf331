"""Stage pretrain_autoencoder: a small KL or VQ autoencoder from scratch, on the training images."""

from functools import partial

import torch

from study import distributed, paths
from study.autoencoders.models import create_autoencoder
from study.autoencoders.monitor import Views, forward_gflop
from study.autoencoders.train import train_autoencoder
from study.command import device, place, stage
from study.config.seeds import derive
from study.config.stages import PretrainAutoencoder
from study.data.store import PixelStore
from study.keeper import check_weights
from study.progress import track
from study.tracking import Run


def main(config: PretrainAutoencoder, run: Run) -> None:
    """Train without transforms and save in diffusers format."""
    cell, training = config.cell, config.pretrain_autoencoder
    seed = cell.seed or 0
    torch.manual_seed(derive(seed, "autoencoder", "weights"))
    autoencoder = place(create_autoencoder(config.autoencoder))
    run.family = autoencoder.family.value
    store = PixelStore(paths.store(cell))
    network = paths.network(cell, "perceptual")
    views = Views.load(training, network, store.images("validation"), device())
    with run.keeper as keeper:
        work = train_autoencoder(
            autoencoder,
            store.images("train"),
            training,
            None,
            views,
            derive(seed, "pretrain"),
            run.log,
            partial(track, total=training.steps, description="autoencoder"),
            keeper,
        )
    check_weights(autoencoder, training.steps)
    encoder, decoder = forward_gflop(autoencoder, store.images("train").shape[-1])
    run.cost("gflop_per_image", 3 * (work.encoded * encoder + work.decoded * decoder))
    run.protocol = {"perceptual distance": views.name}
    if distributed.leader():
        autoencoder.save(run.output())


if __name__ == "__main__":
    stage(main, __file__, shared=True)
