"""Stage reference_statistics: what real images look like to the extractor, and how it responds."""

from dataclasses import asdict

import numpy as np

from study import paths
from study.command import device, stage
from study.config.stages import ReferenceStatistics
from study.data.store import PixelStore
from study.evaluation.features import load_extractor
from study.evaluation.real_images import against_adm, ruler, ruler_protocol, scan
from study.evaluation.reference import Reference, require_samples
from study.evaluation.samples import SampleMeasures
from study.tracking import Run


def main(config: ReferenceStatistics, run: Run) -> None:
    """Extract features of both splits; what held-out images score is what perfection would."""
    store, settings = PixelStore(paths.store(config.cell)), config.reference_statistics
    evaluation, size = config.evaluation, settings.batch_size
    extractor = load_extractor(evaluation, paths.network(config.cell, "extractor"), device())
    validation = store.images("validation")
    train, gallery = scan(extractor, store.images("train"), size)
    held_out, own = scan(extractor, validation, size)
    for field, count in (
        ("validation_images", len(held_out)),
        ("degraded_images", settings.degraded_images),
    ):
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
    reference.save(paths.reference(config.cell))
    measures = SampleMeasures(reference, evaluation, device())
    for result in measures.floor(held_out):
        run.record(**asdict(result))
    run.protocol = {**measures.protocol(), "floor": "held-out images in the place of samples"}
    if not evaluation.allow_few_samples:
        images, labels = validation[: settings.degraded_images], store.labels("validation")
        for result in ruler(extractor, images, held_out, labels, reference.train, size):
            run.record(**asdict(result))
        run.protocol |= ruler_protocol()


if __name__ == "__main__":
    stage(main, __file__)
