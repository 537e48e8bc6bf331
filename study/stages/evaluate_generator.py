"""Stage evaluate_generator: samples and what is measured of them, at every checkpoint of a run."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial

from torch import Tensor, nn

from study import distributed, paths
from study.autoencoders.models import load_autoencoder
from study.command import device, place, stage
from study.config import Role, SamplingMethod, Weights
from study.config.seeds import derive
from study.config.stages import EvaluateGenerator
from study.data.store import PixelStore
from study.distributed import dealt
from study.evaluation.autoencoder import reconstructions
from study.evaluation.features import (
    FeatureExtractor,
    Features,
    load_extractor,
    load_second_extractor,
)
from study.evaluation.neighbours import thumbnails
from study.evaluation.passes import Gathered
from study.evaluation.reference import Reference, require_samples
from study.evaluation.result import Result
from study.evaluation.samples import Gallery, SampleMeasures
from study.generators.checkpoints import Checkpoint, load_generator, load_index
from study.generators.decode import decode_batches
from study.generators.objectives import build_objective
from study.generators.sample import (
    network_calls,
    prepare,
    random_latents,
    sample_batches,
    sample_labels,
)
from study.progress import track
from study.tracking import Run


def main(config: EvaluateGenerator, run: Run) -> None:
    """Sample every checkpoint with the same noise and labels, decode, measure.

    Samples of averaged weights; where the trained ones were kept, of the last checkpoint's too.
    """
    cell, settings, seed = config.cell, config.evaluate_generator, config.cell.seed or 0
    folder = paths.generator(cell)
    index = load_index(folder)
    run.family = index.spec.family
    objective = build_objective(config.generator)
    decoder = place(load_autoencoder(paths.autoencoder(cell)))
    decoder.prepare(settings.precision, settings.compile)
    extractor = load_extractor(config.evaluation, paths.network(cell, "extractor"), device())
    reference, second = Reference.load(paths.reference(cell)), None
    if reference.second is not None:
        network = paths.network(cell, Role.extractor_self_supervised.value)
        second = load_second_extractor(network, device())
    dimension = max(len(known.mean) for known in (reference.train, reference.second) if known)
    for field in ("num_samples", "reconstructions"):
        require_samples(getattr(settings, field), dimension, config.evaluation, field)
    measures = SampleMeasures(reference, config.evaluation, device())
    gallery = Gallery.load(paths.gallery(cell))
    labels = sample_labels(reference.class_counts, settings.num_samples)
    tokens = config.sampler.method in (SamplingMethod.confidence, SamplingMethod.halton)
    num_steps = settings.num_token_steps if tokens else settings.num_steps
    decode = partial(decode_batches, decoder, index.spec, index.scaling)
    sample = partial(
        sample_batches,
        objective=objective,
        spec=index.spec,
        labels=labels,
        sampler=config.sampler,
        num_steps=num_steps,
        micro_batch_size=settings.micro_batch_size,
        seed=derive(seed, "evaluation"),
        device=device(),
        process=distributed.rank(),
        num_processes=distributed.world(),
        precision=settings.precision,
    )
    kept = max(settings.grid_images, settings.nearest_samples)

    def load(checkpoint: Checkpoint, weights: Weights) -> nn.Module:
        network = load_generator(folder, index, checkpoint, config.generator, weights, device())
        return prepare(network, settings.precision, settings.compile)

    state, last = run.keeper.restore() or {"checkpoint": 0}, None
    left = index.checkpoints[state["checkpoint"] :]
    for number, checkpoint in enumerate(track(left, len(left), "checkpoints"), state["checkpoint"]):
        network = load(checkpoint, config.sampler.weights)
        gathered = Gathered(extractor, kept, state.pop("gathered", None), second)
        latents = sample(network, done=gathered.batches)
        count = math.ceil(settings.num_samples / settings.micro_batch_size) - gathered.batches
        with run.keeper as keeper:
            for images in distributed.turns(decode(latents), count):
                if images is not None:
                    gathered.add(images)
                if keeper.due:
                    keeper.save({"checkpoint": number, "gathered": gathered.state()})
        gathered.join()
        if not distributed.leader():
            continue
        features, shown = gathered.features(), gathered.shown
        record = partial(_record, run, checkpoint.step, checkpoint.images_seen)
        record(measures.everything(features))
        record(measures.second(gathered.second_vectors()))
        record(measures.nearest(features, thumbnails(shown[: settings.nearest_samples]), gallery))
        run.grid(checkpoint.step, shown.numpy())
        if checkpoint is index.checkpoints[-1]:
            record(measures.extrapolated(features))
            last = features
            grid = shown[: settings.grid_images].numpy()
            run.picture(grid, columns=max(1, int(settings.grid_images**0.5)))
    checkpoint, raw = index.checkpoints[-1], None
    if checkpoint.raw_file is not None and config.sampler.weights is Weights.ema:
        raw = _features(extractor, decode(sample(load(checkpoint, Weights.raw))))
    nothing = random_latents(
        index.spec,
        settings.num_samples,
        settings.micro_batch_size,
        derive(seed, "random"),
        device(),
    )
    images = PixelStore(paths.store(cell)).images("train")
    size, own_seed = settings.micro_batch_size, derive(seed, "reconstructions")
    found = reconstructions(decoder, images, settings.reconstructions, size, own_seed)
    own, unlearnt = _features(extractor, found), _features(extractor, decode(dealt(nothing)))
    if raw:
        _record(run, checkpoint.step, checkpoint.images_seen, measures.frechet(raw, "_raw"))
    if last and own and unlearnt:
        against = measures.against_reconstructions(last, own.vectors)
        _record(run, checkpoint.step, checkpoint.images_seen, against)
        _record(run, None, None, measures.frechet(unlearnt, "_random_latents"))
    run.protocol = {
        "samples": settings.num_samples,
        "sampler": config.sampler.method.value,
        "steps": num_steps,
        "nfe": network_calls(config.sampler.method, num_steps) or "chosen by the sampler",
        "cfg_scale": config.sampler.cfg_scale,
        "cfg_interval": config.sampler.cfg_interval,
        "cfg_channels": config.sampler.cfg_channels or "all",
        "weights": config.sampler.weights.value,
        "precision": settings.precision.value,
        "labels": "class frequencies of the training images",
        "scaling": index.scaling.value,
        **({"alignment target": index.target} if index.target else {}),
        "reconstructions": f"{settings.reconstructions} training images, latents sampled",
        **measures.protocol(),
    }


def _features(extractor: FeatureExtractor, own: Iterable[Tensor]) -> Features | None:
    """Features of every process's batches, in the leader."""
    gathered = Gathered(extractor, 0)
    for images in own:
        gathered.add(images)
    gathered.join()
    return gathered.features() if distributed.leader() else None


def _record(run: Run, step: int | None, images_seen: int | None, results: Iterable[Result]) -> None:
    for result in results:
        run.record(**asdict(result), step=step, images_seen=images_seen)


if __name__ == "__main__":
    stage(main, __file__, shared=True)
