"""Stage finetune_autoencoder: one arm, from the pretrained weights, on the same budget as all."""

import json
import time
from functools import partial

from study import distributed, paths
from study.autoencoders.models import Autoencoder, load_autoencoder
from study.autoencoders.monitor import LAST, Views, forward_gflop, range_over_last
from study.autoencoders.train import train_autoencoder
from study.command import device, place, stage
from study.config import Trainable
from study.config.stages import FinetuneAutoencoder
from study.data.store import PixelStore
from study.keeper import check_weights
from study.progress import track
from study.tracking import Run

CONVERGED = ("held_out_reconstruction", "equivariance_error")
"""What must have come to rest for arms to be compared."""


def main(config: FinetuneAutoencoder, run: Run) -> None:
    """Fine-tune (arm `pretrained`: adopt the weights as they are) and save in diffusers format."""
    settings = config.autoencoder.of_arm(config.arm)
    autoencoder = load_autoencoder(
        settings.weights_source() or paths.pretrained(config.cell), settings.family
    )
    run.family = autoencoder.family.value
    if config.arm.trainable is Trainable.nothing:
        run.log(0, {})
    else:
        _train(place(autoencoder), config, run)
    if distributed.leader():
        autoencoder.save(run.output())
        facts = {"published_scale": settings.published_scale}
        (run.output() / "study.json").write_text(json.dumps(facts) + "\n")


def _train(autoencoder: Autoencoder, config: FinetuneAutoencoder, run: Run) -> None:
    cell, training = config.cell, config.finetune_autoencoder
    store = PixelStore(paths.store(cell))
    network = paths.network(cell, "perceptual")
    views = Views.load(training, network, store.images("validation"), device())
    with run.keeper as keeper:
        work = train_autoencoder(
            autoencoder,
            store.images("train"),
            training,
            config.arm,
            views,
            cell.seed or 0,
            run.log,
            partial(track, total=training.steps, description="autoencoder"),
            keeper,
        )
    check_weights(autoencoder, training.steps)
    run.cost("training_seconds", time.time() - run.started)
    encoder, decoder = forward_gflop(autoencoder, store.images("train").shape[-1])
    # Forward and backward; the same rule for every arm, the discriminator left out.
    run.cost("gflop_per_image", 3 * (work.encoded * encoder + work.decoded * decoder))
    for metric in CONVERGED:
        points = [(row["step"], row[metric]) for row in run.curve if metric in row]
        change = range_over_last(points)
        run.record(f"last_fifth_change_{metric}", change, n=training.monitor_images)
    run.protocol = {
        "perceptual distance": views.name,
        "followed": f"first {training.monitor_images} held-out images, mean latents",
        "change": f"largest less smallest over the last {LAST:.0%} of the steps, over the last",
    }


if __name__ == "__main__":
    stage(main, __file__, shared=True)
