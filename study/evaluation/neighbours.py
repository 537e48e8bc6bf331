"""What nearest neighbours in feature space say: quality and variety apart, and copying.

Distances are computed in blocks, so that memory does not grow with the number of images.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from study.config import StudyError
from study.evaluation.distances import CPU, Array

PRECISION_NEIGHBOURS = 3
"""k of precision and recall [1904.06991]."""
DENSITY_NEIGHBOURS = 5
"""k of density and coverage [2002.09797]."""
BLOCK = 4_000_000
"""Distances at a time: 32 MB in float64."""
THUMBNAIL_SIDE = 32
"""Largest side at which pixels are compared: a copy shows at this size, whatever the decoder adds
to its detail."""


@dataclass(frozen=True, slots=True)
class Manifolds:
    """Shares in [0, 1]; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


class RealManifold:
    """Balls around real features, out to their k-th neighbour; made once, compared with often."""

    def __init__(self, features: Array, device: torch.device = CPU) -> None:
        """Features M D of at least two real images; k is lowered to M - 1 for fewer."""
        self.features = torch.from_numpy(features).to(device)
        ks = (PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS)
        self.near, self.far = _radii(self.features, ks)

    def compare(self, samples: Array) -> Manifolds:
        """All four of samples N D, in one pass [1904.06991, Eq. 1 to 2; 2002.09797, Eq. 3 to 5]."""
        real = self.features
        rows = torch.from_numpy(samples).to(real.device)
        (own,) = _radii(rows, (PRECISION_NEIGHBOURS,))
        precise = inside = 0
        recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
        nearest = torch.full((len(real),), torch.inf, dtype=real.dtype, device=real.device)
        for first, block in _blocks(rows, len(real)):
            distance = torch.cdist(block, real)
            precise += int((distance <= self.near).any(1).sum())
            inside += int((distance <= self.far).sum())
            recalled |= (distance <= own[first : first + len(block), None]).any(0)
            nearest = torch.minimum(nearest, distance.amin(0))
        k = min(DENSITY_NEIGHBOURS, len(real) - 1)
        return Manifolds(
            precision=precise / len(rows),
            recall=float(recalled.double().mean()),
            density=inside / (k * len(rows)),
            coverage=float((nearest <= self.far).double().mean()),
        )


def _radii(points: Tensor, ks: tuple[int, ...]) -> list[Tensor]:
    """Distance of every point to its k-th nearest other point, for each k."""
    if len(points) < 2:
        raise StudyError(f"{len(points)} features: must be at least 2 to have neighbours")
    ks = tuple(min(k, len(points) - 1) for k in ks)
    rows = []
    for _, block in _blocks(points, len(points)):
        # The nearest of all is the point itself.
        rows.append(torch.cdist(block, points).topk(max(ks) + 1, largest=False).values)
    near = torch.cat(rows)
    return [near[:, k] for k in ks]


def _blocks(rows: Tensor, columns: int) -> list[tuple[int, Tensor]]:
    size = max(1, BLOCK // columns)
    return [(first, rows[first : first + size]) for first in range(0, len(rows), size)]


def nearest_distance(
    queries: NDArray, gallery: NDArray, device: torch.device = CPU
) -> NDArray[np.float64]:
    """Distance of every query to its nearest neighbour in a gallery, N.

    Args:
        queries: N D.
        gallery: M D; may be a memory map, read in blocks.
        device: where to compute.
    """
    rows = torch.from_numpy(queries).to(device).float()
    # Around their mean, since squares of large numbers would hide small differences.
    centre = rows.mean(0)
    rows = rows - centre
    best = torch.full((len(rows),), torch.inf, device=device)
    place = torch.zeros(len(rows), dtype=torch.int64, device=device)
    size = max(1, BLOCK // max(len(rows), rows.shape[1]))
    for first in range(0, len(gallery), size):
        block = torch.from_numpy(np.array(gallery[first : first + size])).to(device).float()
        block = block - centre
        # |g|^2 - 2 q g: the squared distance but for |q|^2, which moves no minimum.
        score = block.square().sum(1) - 2 * rows @ block.T
        value, index = score.min(1)
        better = value < best
        best = torch.where(better, value, best)
        place = torch.where(better, index + first, place)
    # From the difference itself: what is left of large squares would not do for a near copy.
    chosen = np.array(gallery[place.cpu().numpy()]).astype(np.float64)
    return np.linalg.norm(queries.astype(np.float64) - chosen, axis=1)


def thumbnails(images: Tensor) -> NDArray[np.uint8]:
    """Images, uint8 B 3 H W, averaged down to a side of at most 32 and flattened, uint8 B D."""
    side = min(THUMBNAIL_SIDE, images.shape[-1])
    small = functional.adaptive_avg_pool2d(images.float(), side)
    return small.round().to(torch.uint8).flatten(1).cpu().numpy()


def nearest_pixels(
    queries: NDArray[np.uint8], gallery: NDArray[np.uint8], device: torch.device = CPU
) -> NDArray[np.float64]:
    """Distance of thumbnails (N D) to the nearest of a gallery (M D) or of its mirror images, N.

    Generators are trained on both orientations.
    """
    side = round((queries.shape[1] / 3) ** 0.5)
    mirrored = np.ascontiguousarray(queries.reshape(-1, 3, side, side)[..., ::-1])
    both = np.concatenate([queries, mirrored.reshape(queries.shape)])
    return nearest_distance(both, gallery, device).reshape(2, -1).min(0)
