"""Stage reference_statistics: features of real images, and the floor of the distance."""

from collections.abc import Iterator

import numpy as np
import torch

from study import paths
from study.command import device, stage
from study.config.stages import ReferenceStatistics
from study.data.store import PixelStore
from study.evaluation.distances import frechet_distance
from study.evaluation.features import load_extractor
from study.evaluation.reference import Reference, require_samples
from study.tracking import Run


def main(config: ReferenceStatistics, run: Run) -> None:
    """Extract features of both splits; the distance between them is what perfection would score."""
    store = PixelStore(paths.store(config.cell))
    extractor = load_extractor(config.evaluation, paths.network(config.cell, "extractor"), device())

    def batches(split: str) -> Iterator[torch.Tensor]:
        images, size = store.images(split), config.reference_statistics.batch_size
        for first in range(0, len(images), size):
            yield torch.from_numpy(np.array(images[first : first + size]))

    train, held_out = extractor.all(batches("train")), extractor.all(batches("validation"))
    require_samples(len(held_out), held_out.shape[1], config.evaluation, "validation_images")
    reference = Reference.of(
        train, held_out, store.labels("train"), store.num_classes, extractor.name
    )
    reference.save(paths.reference(config.cell))
    floor = frechet_distance(reference.held_out, reference.train)
    run.record(f"fd_{extractor.name}_floor", floor, n=len(held_out), extractor=extractor.name)
    run.protocol = {"reference": f"{len(train)} training images", "extractor": extractor.name}


if __name__ == "__main__":
    stage(main, __file__)
