"""Stage evaluate_generator: samples and distances at every checkpoint of a run."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from study import paths
from study.autoencoders.models import load_autoencoder
from study.command import device, stage
from study.config import SamplingMethod
from study.config.seeds import derive
from study.config.stages import EvaluateGenerator
from study.evaluation.distances import (
    frechet_distance,
    frechet_standard_error,
    kernel_distance,
    statistics,
)
from study.evaluation.features import load_extractor
from study.evaluation.reference import Reference, require_samples
from study.generators.checkpoints import load_generator, load_index
from study.generators.decode import decode_batches
from study.generators.objectives import build_objective
from study.generators.sample import random_latents, sample_batches, sample_labels
from study.progress import track
from study.tracking import Run


def main(config: EvaluateGenerator, run: Run) -> None:
    """Sample every checkpoint with the same noise and labels, decode, measure."""
    cell, settings, seed = config.cell, config.evaluate_generator, config.cell.seed or 0
    folder = paths.generator(cell)
    index = load_index(folder)
    run.family = index.spec.family
    objective = build_objective(config.generator)
    decoder = load_autoencoder(paths.autoencoder(cell)).to(device())
    extractor = load_extractor(config.evaluation, paths.network(cell, "extractor"), device())
    reference = Reference.load(paths.reference(cell))
    dimension = len(reference.train.mean)
    require_samples(settings.num_samples, dimension, config.evaluation, "num_samples")
    labels = sample_labels(reference.class_counts, settings.num_samples)
    tokens = config.sampler.method is SamplingMethod.confidence
    num_steps = settings.num_token_steps if tokens else settings.num_steps
    decode = partial(decode_batches, decoder, index.spec, index.scaling)
    measure = partial(_measure, config, run, reference, extractor.name)

    def features_of(batches: Iterator[Tensor], keep: int = 0) -> tuple[np.ndarray, list[Tensor]]:
        kept: list[Tensor] = []
        rows = []
        for images in decode(batches):
            rows.append(extractor(images))
            if sum(map(len, kept)) < keep:
                kept.append(images.cpu())
        return np.concatenate(rows), kept

    for checkpoint in track(index.checkpoints, len(index.checkpoints), "checkpoints"):
        network = load_generator(folder, index, checkpoint, config.generator, device())
        latents = sample_batches(
            network,
            objective,
            index.spec,
            labels,
            config.sampler,
            num_steps,
            settings.micro_batch_size,
            derive(seed, "evaluation"),
            device(),
        )
        features, kept = features_of(latents, settings.grid_images)
        measure(features, "", checkpoint.step, checkpoint.images_seen)
        if checkpoint is index.checkpoints[-1]:
            shown = torch.cat(kept)[: settings.grid_images].numpy()
            run.picture(shown, columns=max(1, int(settings.grid_images**0.5)))
    nothing = random_latents(
        index.spec,
        settings.num_samples,
        settings.micro_batch_size,
        derive(seed, "random"),
        device(),
    )
    measure(features_of(nothing)[0], "_random_latents", None, None)
    run.protocol = {
        "samples": settings.num_samples,
        "sampler": config.sampler.method.value,
        "steps": num_steps,
        "cfg_scale": config.sampler.cfg_scale,
        "weights": "EMA",
        "labels": "class frequencies of the training images",
        "reference": f"{reference.train.count} training images",
        "extractor": extractor.name,
        "scaling": index.scaling.value,
    }


def _measure(
    config: EvaluateGenerator,
    run: Run,
    reference: Reference,
    name: str,
    features: np.ndarray,
    suffix: str,
    step: int | None,
    images_seen: int | None,
) -> None:
    settings, n = config.evaluation, len(features)
    ours = statistics(features)
    distance = frechet_distance(ours, reference.train)
    spread = 1.96 * frechet_standard_error(
        features, reference.train, settings.bootstrap_samples, derive(0, "bootstrap")
    )
    run.record(
        f"fd_{name}{suffix}",
        distance,
        step=step,
        images_seen=images_seen,
        n=n,
        low=distance - spread,
        high=distance + spread,
        extractor=name,
    )
    if suffix:
        return
    held_out = frechet_distance(ours, reference.held_out)
    kernel = kernel_distance(features, reference.train_features, settings.kid_subset_size, 0)
    for metric, value in ((f"fd_{name}_held_out", held_out), (f"kid_{name}", kernel)):
        run.record(metric, value, step=step, images_seen=images_seen, n=n, extractor=name)


if __name__ == "__main__":
    stage(main, __file__)
