"""Everything that is measured of one set of generated images, from one pass of the extractor."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from study.config import EvaluationConfig, Extractor
from study.config.seeds import derive
from study.evaluation.distances import (
    Array,
    Statistics,
    extrapolated_distance,
    frechet_distance,
    frechet_standard_error,
    kernel_distance,
    statistics,
)
from study.evaluation.features import SELF_SUPERVISED, Features
from study.evaluation.neighbours import (
    DENSITY_NEIGHBOURS,
    PRECISION_NEIGHBOURS,
    RealManifold,
    nearest_distance,
    nearest_pixels,
)
from study.evaluation.reference import Reference
from study.evaluation.result import Result

PUBLISHED_SAMPLES = 50_000
"""Of the published protocol, to which alone the name FID belongs."""
SPLIT = 5000
"""Images per split of the Inception score, as ADM; fewer images are one split."""
INTERVAL = 1.96
"""Standard errors to either side of a distance: 95 %."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """Every training image, to find copies: vectors M D and thumbnails M D'."""

    vectors: Array
    thumbnails: NDArray[np.uint8]

    def save(self, folder: Path) -> None:
        """Write both arrays; vectors in half precision, which no nearest image depends on."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors.npy", self.vectors.astype(np.float16))
        np.save(folder / "thumbnails.npy", self.thumbnails)

    @classmethod
    def load(cls, folder: Path) -> "Gallery":
        """Memory maps of what `save` wrote.

        Raises:
            FileNotFoundError: not there.
        """
        files = [folder / f"{name}.npy" for name in ("vectors", "thumbnails")]
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"{file}: no such file; made by reference_statistics")
        return cls(*(np.load(file, mmap_mode="r", allow_pickle=False) for file in files))

    def nearest(
        self, vectors: Array, thumbnails: NDArray[np.uint8], device: torch.device
    ) -> dict[str, float]:
        """Mean distance of images to their nearest in the gallery: `features`, `pixels`."""
        return {
            "features": float(nearest_distance(vectors, self.vectors, device).mean()),
            "pixels": float(nearest_pixels(thumbnails, self.thumbnails, device).mean()),
        }


class SampleMeasures:
    """Measures sets of samples against one reference."""

    def __init__(
        self, reference: Reference, config: EvaluationConfig, device: torch.device
    ) -> None:
        """Prepare what all sets are compared with."""
        self.reference, self.config, self.device = reference, config, device
        self.real = RealManifold(reference.train_features, device)
        self.extrapolated_from: list[int] = []

    def frechet(self, features: Features, suffix: str = "") -> Iterator[Result]:
        """Distance to the training images, with its interval."""
        name = self._published("fid", features) + suffix
        train, extractor = self.reference.train, self.reference.extractor
        yield self._with_interval(name, features.vectors, train, extractor)

    def second(self, vectors: Array | None) -> Iterator[Result]:
        """Distance to the training images by the second extractor, if any, with its interval."""
        if self.reference.second is not None and vectors is not None:
            name = f"fd_{SELF_SUPERVISED}"
            yield self._with_interval(name, vectors, self.reference.second, SELF_SUPERVISED)

    def _with_interval(self, name: str, vectors: Array, train: Statistics, by: str) -> Result:
        distance = frechet_distance(statistics(vectors, self.device), train, self.device)
        half = INTERVAL * frechet_standard_error(vectors, train, self.device)
        low, high = max(0.0, distance - half), distance + half
        return Result(name, distance, len(vectors), by, low, high)

    def everything(self, features: Features) -> Iterator[Result]:
        """What is measured at every checkpoint."""
        extractor, reference = self.reference.extractor, self.reference
        yield from self.frechet(features)
        held_out = frechet_distance(self._own(features), reference.held_out, self.device)
        yield self._result(f"fd_{extractor}_held_out", held_out, features)
        spatial = statistics(features.spatial, self.device)
        distance = frechet_distance(spatial, reference.train_spatial, self.device)
        yield self._result(self._published("sfid", features), distance, features)
        size = self.config.kid_subset_size
        kernel = kernel_distance(features.vectors, reference.train_features, size, 0)
        yield self._result(f"kid_{extractor}", kernel, features)
        inception = extractor == Extractor.inception.value
        name = "inception_score" if inception else f"inception_score_{extractor}"
        yield self._result(name, inception_score(features.logits), features)
        shares = self.real.compare(features.vectors)
        for name in ("precision", "recall", "density", "coverage"):
            yield self._result(f"{name}_{extractor}", getattr(shares, name), features)

    def floor(self, held_out: Features) -> Iterator[Result]:
        """What held-out images score in the place of samples: the best there is, `_floor`."""
        for result in (*self.everything(held_out), *self.extrapolated(held_out)):
            if not result.metric.endswith("_held_out"):
                yield as_floor(result)

    def extrapolated(self, features: Features) -> Iterator[Result]:
        """The distance at infinitely many samples, where there are enough to extrapolate from."""
        least = 2 if self.config.allow_few_samples else 2 * features.vectors.shape[1]
        found = extrapolated_distance(
            features.vectors,
            self.reference.train,
            least,
            derive(0, "extrapolation"),
            self.device,
        )
        if found is not None:
            distance, self.extrapolated_from = found
            name = self._published("fid", features) + "_infinity"
            yield self._result(name, distance, features)

    def against_reconstructions(
        self, features: Features, reconstructions: Array
    ) -> Iterator[Result]:
        """Distance to the arm's own reconstructions, and theirs to the training images.

        The first leaves the decoder out; the second is the least that its generators can reach.
        """
        extractor, device = self.reference.extractor, self.device
        own = statistics(reconstructions, device)
        distance = frechet_distance(self._own(features), own, device)
        yield self._result(f"fd_{extractor}_reconstructions", distance, features)
        floor = frechet_distance(own, self.reference.train, device)
        name = f"rfd_{extractor}_training"
        yield Result(name, floor, len(reconstructions), extractor)

    def nearest(
        self, features: Features, thumbnails: NDArray[np.uint8], gallery: Gallery
    ) -> Iterator[Result]:
        """Mean distance to the nearest training image over that of held-out images.

        About 1 for images as new as held-out ones, towards 0 for copies.

        Args:
            features: of the first samples.
            thumbnails: of the same, as `neighbours.thumbnails` makes them.
            gallery: all training images.
        """
        extractor, n = self.reference.extractor, len(thumbnails)
        found = gallery.nearest(features.vectors[:n], thumbnails, self.device)
        for space, usual in self.reference.nearest_held_out.items():
            if usual > 0:
                name = "pixels" if space == "pixels" else extractor
                yield Result(f"nearest_ratio_{name}", found[space] / usual, n, extractor)

    def protocol(self) -> dict[str, str | int]:
        """How the numbers were made."""
        sizes = ", ".join(map(str, self.extrapolated_from)) or "none, too few samples"
        kept = len(self.reference.train_features)
        spatial = len(self.reference.train_spatial.mean)
        inception = self.reference.extractor == Extractor.inception.value
        return {
            "reference": self.reference.source,
            "held-out reference": f"{self.reference.held_out.count} held-out images",
            "extractor": self.reference.extractor,
            "second extractor": SELF_SUPERVISED if self.reference.second else "none",
            "resize": "299 x 299, TensorFlow 1's bilinear" if inception else "none",
            "feature dimensions": f"{len(self.reference.train.mean)}, spatial {spatial}",
            "interval over samples": "for the expected distance at this n: the distance "
            f"± {INTERVAL} standard errors, by the influence function",
            "n of the fit for infinitely many samples": sizes,
            "KID": f"100 subsets of {self.config.kid_subset_size}, {kept} real images",
            "precision, recall; density, coverage": f"k = {PRECISION_NEIGHBOURS}; "
            f"{DENSITY_NEIGHBOURS}; {kept} real images",
            "Inception score": f"of {self.reference.extractor}'s classes, splits of {SPLIT}",
            "nearest images": "of all training images, over the same of held-out images; pixels at "
            "a side of at most 32, mirror images too",
        }

    def _own(self, features: Features) -> Statistics:
        return statistics(features.vectors, self.device)

    def _result(self, metric: str, value: float, features: Features) -> Result:
        return Result(metric, value, len(features), self.reference.extractor)

    def _published(self, name: str, features: Features) -> str:
        """`fid` or `sfid` under the published protocol, else fd or sfd and the extractor."""
        return published_name(name, self.reference, len(features))


def as_floor(result: Result) -> Result:
    """What held-out images score in the place of samples, named so."""
    return replace(result, metric=f"{result.metric}_floor")


def published_name(name: str, reference: Reference, n: int) -> str:
    """Name of a Fréchet distance (`fid`, `sfid`) or, away from the protocol, what it is instead."""
    published = reference.extractor == Extractor.inception.value and reference.adm
    if published and n == PUBLISHED_SAMPLES:
        return name
    return f"{name.replace('fid', 'fd')}_{reference.extractor}"


def inception_score(logits: Array) -> float:
    """exp(mean KL(p(y|x) | p(y))), mean over splits of 5,000 [1606.03498], by torch-fidelity.

    From 1 (every image looks like the average one) to the number of classes.

    Args:
        logits: N K.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    splits = max(1, len(logits) // SPLIT)
    return float(isc_features_to_metric(torch.from_numpy(logits), splits)[KEY_METRIC_ISC_MEAN])
