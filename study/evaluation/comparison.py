"""How far images are from what they should be: PSNR, SSIM, perceptual and Frechet distance."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from study.config import StudyError
from study.data.store import to_float, to_uint8
from study.evaluation.distances import Statistics, frechet_distance, statistics
from study.evaluation.features import FeatureExtractor
from study.evaluation.reconstruction import psnr_db, ssim
from study.evaluation.result import Result


@dataclass(frozen=True, slots=True)
class Judges:
    """Trained networks that measure; what needs a missing one is left out."""

    extractor: FeatureExtractor | None = None
    reference: Statistics | None = None
    """Features of the training images, which reconstructions are compared with."""
    perceptual: tuple[str, nn.Module] | None = None
    """Name and module, as `perceptual_distance` makes them."""


@dataclass(slots=True)
class Comparison:
    """Accumulates pairs of images, compared as 8-bit images, which is what anyone saves.

    The Frechet distance is to `reference` where there is one, else to the targets' own features.
    """

    judges: Judges
    reference: Statistics | None = None
    with_ssim: bool = False
    """Needs images of at least 11 pixels."""
    psnr_db: list[Tensor] = field(default_factory=list)
    ssim: list[Tensor] = field(default_factory=list)
    perceptual: list[Tensor] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    target_features: list[np.ndarray] = field(default_factory=list)

    def add(self, images: Tensor, targets: Tensor) -> None:
        """Add a batch of images and their targets, B 3 H W; values beyond [-1, 1] are clipped."""
        images, targets = to_uint8(images), to_uint8(targets)
        pair = images.float() / 255, targets.float() / 255
        self.psnr_db.append(psnr_db(*pair))
        if self.with_ssim:
            self.ssim.append(ssim(*pair))
        if self.judges.perceptual is not None:
            distance = self.judges.perceptual[1]
            self.perceptual.append(distance(to_float(images), to_float(targets)))
        if self.judges.extractor is not None:
            self.features.append(self.judges.extractor(images))
            if self.reference is None:
                self.target_features.append(self.judges.extractor(targets))

    def results(self) -> Iterator[Result]:
        """Means over images and, with an extractor, the distance between the two sets.

        Raises:
            StudyError: a feature is not finite, or all are the same.
        """
        n = sum(map(len, self.psnr_db))
        yield Result("psnr_db", float(torch.cat(self.psnr_db).mean()), n)
        if self.with_ssim:
            yield Result("ssim", float(torch.cat(self.ssim).mean()), n)
        if self.judges.perceptual is not None:
            name = self.judges.perceptual[0]
            yield Result(name, float(torch.cat(self.perceptual).mean()), n)
        if self.judges.extractor is not None:
            name, device = self.judges.extractor.name, self.judges.extractor.device
            theirs = self.reference or _statistics(self.target_features, name, device)
            distance = frechet_distance(_statistics(self.features, name, device), theirs, device)
            yield Result(f"rfd_{name}", distance, n, name)


def _statistics(features: list[np.ndarray], name: str, device: torch.device) -> Statistics:
    rows = np.concatenate(features)
    if not np.isfinite(rows).all():
        raise StudyError(f"{name}: a feature is not finite")
    return statistics(rows, device)
