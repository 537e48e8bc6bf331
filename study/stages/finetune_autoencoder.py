"""Stage finetune_autoencoder: one arm, from the pretrained weights, on the same budget as all."""

import json
from functools import partial

from study import paths
from study.autoencoders.models import load_autoencoder
from study.autoencoders.train import train_autoencoder
from study.command import device, stage
from study.config import Trainable
from study.config.stages import FinetuneAutoencoder
from study.data.store import PixelStore
from study.evaluation.networks import PerceptualDistance, load_network
from study.progress import track
from study.tracking import Run


def main(config: FinetuneAutoencoder, run: Run) -> None:
    """Fine-tune (arm `pretrained`: adopt the weights as they are) and save in diffusers format."""
    settings = config.autoencoder
    autoencoder = load_autoencoder(
        settings.weights_source() or paths.pretrained(config.cell), settings.family
    )
    run.family = autoencoder.family.value
    if config.arm.trainable is not Trainable.nothing:
        train_autoencoder(
            autoencoder.to(device()),
            PixelStore(paths.store(config.cell)).images("train"),
            config.finetune_autoencoder,
            config.arm,
            PerceptualDistance(load_network(paths.network(config.cell, "perceptual"), device())),
            config.cell.seed or 0,
            run.log,
            partial(track, total=config.finetune_autoencoder.steps, description="autoencoder"),
        )
    else:
        run.log(0, {})
    autoencoder.save(run.output())
    facts = {"published_scale": settings.published_scale}
    (run.output() / "study.json").write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    stage(main, __file__)
