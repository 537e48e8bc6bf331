"""Real images through the extractor: the reference, the gallery, and whether the ruler responds."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from study.config.seeds import derive
from study.evaluation.degradations import DROPPED, GRADES, class_responses, responses
from study.evaluation.distances import Statistics
from study.evaluation.features import SELF_SUPERVISED, FeatureExtractor, Features
from study.evaluation.neighbours import thumbnails
from study.evaluation.reference import Reference, read_adm
from study.evaluation.result import Result
from study.evaluation.samples import Gallery

Images = NDArray[np.uint8]


def scan(extractor: FeatureExtractor, images: Images, size: int) -> tuple[Features, Gallery]:
    """Features of images N 3 H W in batches of a size, and the gallery that they make."""
    features = features_of(extractor, images, size)
    small = [thumbnails(batch) for batch in _batches(images, size)]
    return features, Gallery(features.vectors, np.concatenate(small))


def features_of(extractor: FeatureExtractor, images: Images, size: int) -> Features:
    """Features of images N 3 H W in batches of a size."""
    return extractor.all(_batches(images, size))


def _batches(images: Images, size: int) -> Iterator[torch.Tensor]:
    for first in range(0, len(images), size):
        yield torch.from_numpy(np.array(images[first : first + size]))


def against_adm(
    reference: Reference, path: str, extractor: FeatureExtractor, size: int
) -> Reference:
    """The reference with ADM's statistics in the place of the training images'.

    Its images, where the file has them, are what KID, precision and its relatives compare with.

    Raises:
        ConfigError: no such file, or not of ADM's form.
    """
    vectors, spatial, images = read_adm(path)
    reference.train, reference.train_spatial, reference.adm = vectors, spatial, True
    reference.source = f"ADM statistics {path}"
    if images is not None:
        reference.train_features = scan(extractor, images, size)[0].vectors
        reference.source += f", with {len(images)} images"
    return reference


def ruler(
    extractor: FeatureExtractor,
    images: Images,
    held_out: Features,
    labels: NDArray[np.integer],
    train: Statistics,
    size: int,
) -> Iterator[Result]:
    """Distances of degraded images and of fewer classes, `ruler_KIND_GRADE`; all should rise.

    Those of the second extractor are `ruler_self_supervised_KIND_GRADE`.

    Args:
        extractor: measures.
        images: held-out images to degrade, N 3 H W.
        held_out: features of all held-out images.
        labels: of all held-out images.
        train: what distances are to.
        size: images per batch.
    """
    seed = derive(0, "ruler")
    prefix = "ruler_self_supervised" if extractor.name == SELF_SUPERVISED else "ruler"
    found = responses(extractor, images, train, size, seed)
    classes = class_responses(held_out.vectors, labels, train, seed, extractor.device)
    least = 2 * held_out.vectors.shape[1]
    for response in (*found, *classes):
        if response.n >= least:
            name = f"{prefix}_{response.name}"
            yield Result(name, response.distance, response.n, extractor.name)


def ruler_protocol() -> dict[str, str]:
    """What the grades of `ruler` are."""
    amounts = {kind: ", ".join(f"{a:.3g}" for a in each) for kind, each in GRADES.items()}
    return {
        "grades of blur": f"standard deviation {amounts['blur']} image sides",
        "grades of noise": f"standard deviation {amounts['noise']} of 255",
        "grades of jpeg": f"quality {amounts['jpeg']}",
        "grades of classes": f"{', '.join(f'{d:.3g}' for d in DROPPED)} of the classes left out",
    }
