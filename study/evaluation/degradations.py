"""Graded degradations of real images, under which a distance that measures quality must rise."""

import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from study.evaluation.distances import CPU, Array, Statistics, frechet_distance, statistics
from study.evaluation.features import FeatureExtractor

Images = NDArray[np.uint8]

GRADES = {
    "blur": (1 / 64, 1 / 32, 1 / 16),
    "noise": (8.0, 16.0, 32.0),
    "jpeg": (75.0, 40.0, 15.0),
}
"""Standard deviation of the blur in image sides, that of the noise in grey values of 255, quality.
Images as they are come first, as grade 0."""
DROPPED = (1 / 8, 1 / 4, 1 / 2)
"""Shares of the classes left out, rounded up."""


class Response(NamedTuple):
    """Distance of degraded images to the reference; `name` is kind and grade."""

    name: str
    distance: float
    n: int


def degrade(images: Images, kind: str, amount: float, seed: int) -> Images:
    """Images N 3 H W after a degradation of `GRADES`."""
    if kind == "blur":
        from scipy.ndimage import gaussian_filter

        sigma = amount * images.shape[-1]
        blurred = gaussian_filter(images.astype(np.float32), (0, 0, sigma, sigma))
        return blurred.round().clip(0, 255).astype(np.uint8)
    if kind == "noise":
        noise = np.random.default_rng(seed).normal(scale=amount, size=images.shape)
        return (images + noise).round().clip(0, 255).astype(np.uint8)
    if kind == "jpeg":
        return np.stack([_compressed(image, round(amount)) for image in images])
    raise ValueError(f"kind = {kind!r}: must be one of {', '.join(GRADES)}")


def _compressed(image: Images, quality: int) -> Images:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


def responses(
    extractor: FeatureExtractor, images: Images, reference: Statistics, batch_size: int, seed: int
) -> Iterator[Response]:
    """Distance of images at every grade of every kind of `GRADES`; grade 0 as they are."""

    def distance(kind: str, amount: float) -> float:
        rows = []
        for first in range(0, len(images), batch_size):
            batch = np.array(images[first : first + batch_size])
            if kind:
                batch = degrade(batch, kind, amount, seed + first)
            rows.append(extractor(torch.from_numpy(batch)))
        own = statistics(np.concatenate(rows), extractor.device)
        return frechet_distance(own, reference, extractor.device)

    untouched = distance("", 0)
    for kind, amounts in GRADES.items():
        yield Response(f"{kind}_0", untouched, len(images))
        for grade, amount in enumerate(amounts, 1):
            yield Response(f"{kind}_{grade}", distance(kind, amount), len(images))


def class_responses(
    features: Array,
    labels: NDArray[np.integer],
    reference: Statistics,
    seed: int,
    device: torch.device = CPU,
) -> Iterator[Response]:
    """Distance with ever more classes left out; grade 0 with all.

    As many images at every grade as the last one leaves, since the distance falls with n.
    """
    classes = np.unique(labels)
    left = {len(classes) - int(np.ceil(share * len(classes))) for share in (0.0, *DROPPED)}
    kept = sorted(left - {0}, reverse=True)
    n = int(np.isin(labels, classes[: kept[-1]]).sum())
    rng = np.random.default_rng(seed)
    for grade, number in enumerate(kept):
        inside = np.flatnonzero(np.isin(labels, classes[:number]))
        chosen = rng.permutation(inside)[:n]
        distance = frechet_distance(statistics(features[chosen], device), reference, device)
        yield Response(f"classes_{grade}", distance, n)
