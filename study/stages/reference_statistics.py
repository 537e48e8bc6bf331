"""Stage reference_statistics: what real images look like to extractors, and how these respond."""

from collections.abc import Iterable
from dataclasses import asdict

import numpy as np

from study import paths
from study.command import device, stage
from study.config import NO_NETWORK, Role
from study.config.stages import ReferenceStatistics
from study.data.store import PixelStore
from study.evaluation.distances import statistics
from study.evaluation.features import load_extractor, load_second_extractor
from study.evaluation.real_images import (
    against_adm,
    features_of,
    ruler,
    ruler_protocol,
    scan,
)
from study.evaluation.reference import Reference, require_samples
from study.evaluation.result import Result
from study.evaluation.samples import SampleMeasures, as_floor
from study.tracking import Run


def main(config: ReferenceStatistics, run: Run) -> None:
    """Extract features of both splits; what held-out images score is what perfection would."""
    store, settings = PixelStore(paths.store(config.cell)), config.reference_statistics
    evaluation, size = config.evaluation, settings.batch_size
    extractor = load_extractor(evaluation, paths.network(config.cell, "extractor"), device())
    validation, labels = store.images("validation"), store.labels("validation")
    degraded = validation[: settings.degraded_images]
    train, gallery = scan(extractor, store.images("train"), size)
    held_out, own = scan(extractor, validation, size)
    counts = {"validation_images": len(held_out), "degraded_images": settings.degraded_images}
    if evaluation.adm_reference is None:
        counts["train_images"] = len(train)
    for field, count in counts.items():
        require_samples(count, held_out.vectors.shape[1], evaluation, field)
    gallery.save(paths.gallery(config.cell))
    reference = Reference.of(
        train,
        held_out,
        gallery.nearest(own.vectors, own.thumbnails, device()),
        np.bincount(store.labels("train"), minlength=store.num_classes).tolist(),
        extractor.name,
        device(),
    )
    if evaluation.adm_reference is not None:
        reference = against_adm(reference, evaluation.adm_reference, extractor, size)
    measures = SampleMeasures(reference, evaluation, device())
    _record(run, measures.floor(held_out))
    if not evaluation.allow_few_samples:
        _record(run, ruler(extractor, degraded, held_out, labels, reference.train, size))
    if config.cell.network != NO_NETWORK:
        network = paths.network(config.cell, Role.extractor_self_supervised.value)
        second = load_second_extractor(network, device())
        vectors = features_of(second, store.images("train"), size).vectors
        reference.second = statistics(vectors, device())
        held_out = features_of(second, validation, size)
        _record(run, map(as_floor, measures.second(held_out.vectors)))
        if not evaluation.allow_few_samples:
            _record(run, ruler(second, degraded, held_out, labels, reference.second, size))
    reference.save(paths.reference(config.cell))
    run.protocol = {**measures.protocol(), "floor": "held-out images in the place of samples"}
    if not evaluation.allow_few_samples:
        run.protocol |= ruler_protocol()


def _record(run: Run, results: Iterable[Result]) -> None:
    for result in results:
        run.record(**asdict(result))


if __name__ == "__main__":
    stage(main, __file__)
