"""Stage train_generator: one generator on the cached latents of one arm."""

from dataclasses import replace
from functools import partial

from study import paths
from study.command import device, stage
from study.config import REPAConfig, Scaling, SiTConfig, TrainGeneratorConfig, plain
from study.config.stages import TrainGenerator
from study.data.store import PixelStore
from study.generators.objectives import build_objective
from study.generators.targets import load_target
from study.generators.train import train_generator
from study.generators.work import training_gflop
from study.latents import LatentCache
from study.progress import track
from study.tracking import Run


def main(config: TrainGenerator, run: Run) -> None:
    """Train and keep EMA checkpoints."""
    cell = config.cell
    cache = LatentCache(paths.latents(cell))
    run.family = cache.spec.family
    target, images = None, None
    if isinstance(config.generator, REPAConfig):
        target = load_target(config.generator, paths.network(cell, "target"), device())
        images = PixelStore(paths.store(cell)).images("train")
    objective, training = build_objective(config.generator, target), training_of(config)
    run.parameters["train_generator"] = plain(training)
    with run.keeper as keeper:
        train_generator(
            run.output(),
            objective,
            cache,
            images,
            config.backbone,
            training,
            Scaling(cell.scaling),
            cell.seed or 0,
            device(),
            run.log,
            partial(track, total=training.steps, description=cell.generator or ""),
            keeper,
        )
    work = training_gflop(objective, config.backbone, cache.spec, device())
    run.cost("gflop_per_image", work)


def training_of(config: TrainGenerator) -> TrainGeneratorConfig:
    """The profile's training; of a control, at its own rate and length."""
    training, generator = config.train_generator, config.generator
    if not isinstance(generator, SiTConfig):
        return training
    rate = generator.learning_rate_factor * training.learning_rate
    return replace(training, learning_rate=rate, steps=generator.steps_factor * training.steps)


if __name__ == "__main__":
    stage(main, __file__, shared=True)
