"""The latent cache: moments (or tokens) of every training image, unflipped and flipped.

What is stored is what the encoder said, before any sampling or scaling: mean and log-variance of a
Gaussian posterior, the mean alone of a deterministic encoder, tokens of a discrete one. Readers
sample and scale. Shards are plain .npy arrays, read through memory maps.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from study import distributed
from study.config import LatentSpec, StudyError
from study.data.store import to_float
from study.keeper import Keeper, complete, require_disk

if TYPE_CHECKING:
    from study.autoencoders.models import Autoencoder

Place = Callable[[Tensor], Tensor]
Shards = list[dict[str, str | int]]

LOGVAR_RANGE = (-30.0, 20.0)
"""As diffusers clamps it; representable in fp16."""


@torch.inference_mode()
def write_cache(
    folder: Path,
    autoencoder: "Autoencoder",
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    published_scale: float,
    batch_size: int,
    shard_images: int,
    track: Callable[[range], Iterable[int]] = iter,
    keeper: Keeper | None = None,
) -> LatentSpec:
    """Encode every image, unflipped and flipped, into shards of moments or tokens.

    Several processes take shards in turn.

    Args:
        folder: written whole; the index comes last.
        autoencoder: in eval mode.
        images: uint8, N 3 H W.
        labels: N.
        num_classes: classes of the data set.
        published_scale: factor of scaling `fixed`.
        batch_size: images per encoder call.
        shard_images: images per shard.
        track: wraps the range of shards for progress.
        keeper: keeps the shards on the way, and has those of an earlier start; None: nothing kept.

    Raises:
        ConfigError: the autoencoder's factor does not divide the image side.
        StudyError: a latent is not finite.
    """
    side = autoencoder.latent_side(images)
    keeper = keeper or Keeper()
    place = keeper.place(folder)
    device = next(autoencoder.parameters()).device
    sums = torch.zeros(2, autoencoder.channels, dtype=torch.float64, device=device)
    counts = np.zeros(autoencoder.codebook_size if autoencoder.discrete else 0, dtype=np.int64)
    shards: Shards = []
    if kept := keeper.restore():
        shards = kept["shards"]
        if distributed.leader():
            sums, counts = kept["sums"].to(device), kept["counts"].numpy()
    else:
        # Two orientations in half precision; tokens take less.
        require_disk(place, 2 * len(images) * 2 * autoencoder.channels * side**2 * 2)
    if autoencoder.compiled:
        # A process may begin with the last shard, whose batches are not full.
        autoencoder.largest = 2 * min(batch_size, shard_images, len(images))
    first_shard, last = len(shards), math.ceil(len(images) / shard_images)
    shards = shards if distributed.leader() else []
    for turn in track(range(first_shard, last, distributed.world())):
        if keeper.due:
            sums, counts, shards = _joined(sums, counts, shards)
            keeper.save({"sums": sums, "counts": torch.from_numpy(counts), "shards": shards})
        number = turn + distributed.rank()
        if number >= last:
            continue
        part = images[number * shard_images : (number + 1) * shard_images]
        rows = []
        for first in range(0, len(part), batch_size):
            chosen = np.array(part[first : first + batch_size])
            batch = to_float(torch.from_numpy(chosen).to(device))
            both = torch.stack([batch, batch.flip(-1)], 1).flatten(0, 1)
            rows.append(_encode(autoencoder, both, sums).unflatten(0, (len(batch), 2)))
        # Not batch by batch: the host would wait for a GPU each time.
        array = torch.cat(rows).cpu().numpy()
        if not np.isfinite(array).all():
            raise StudyError(f"{folder.name}: shard {number}: a latent is not finite")
        shards.append({"file": (name := f"latents-{number:05d}.npy"), "images": len(array)})
        with complete(place / name) as partial, partial.open("wb") as stream:
            np.save(stream, array)
        if autoencoder.discrete:
            counts += np.bincount(array.ravel(), minlength=len(counts))
    sums, counts, shards = _joined(sums, counts, shards)
    if distributed.leader():
        keeper.deliver([str(shard["file"]) for shard in shards], folder)
        spec = _spec(autoencoder, side, len(images), sums, counts, num_classes, published_scale)
        np.save(folder / "labels.npy", labels.astype(np.int64))
        index = {"spec": asdict(spec), "shards": shards}
        (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    distributed.wait()
    return LatentCache(folder).spec


def _joined(sums: Tensor, counts: np.ndarray, shards: Shards) -> tuple[Tensor, np.ndarray, Shards]:
    """What all processes have so far, in the leader; nothing in the others."""
    if distributed.world() == 1:
        return sums, counts, shards
    distributed.total(sums)
    if len(counts):
        distributed.total(torch.from_numpy(counts))
    if not distributed.leader():
        sums, counts = torch.zeros_like(sums), np.zeros_like(counts)
    listed = [shard for own in distributed.collected(shards) for shard in own]
    return sums, counts, sorted(listed, key=lambda shard: str(shard["file"]))


def _spec(
    autoencoder: "Autoencoder",
    side: int,
    images: int,
    sums: Tensor,
    counts: np.ndarray,
    num_classes: int,
    published_scale: float,
) -> LatentSpec:
    """What the index says, from sums over latents of so many images and their mirror images."""
    count = 2 * images * side * side
    sums = sums.cpu()
    mean = sums[0] / count
    std = (sums[1] / count - mean.square()).sqrt()
    kinds = {"kl": "gaussian", "tiny": "deterministic", "vq": "tokens"}
    return LatentSpec(
        kind=kinds[autoencoder.family.value],
        family=autoencoder.family.value,
        channels=autoencoder.channels,
        side=side,
        factor=autoencoder.factor,
        num_classes=num_classes,
        published_scale=published_scale,
        mean=[] if autoencoder.discrete else mean.tolist(),
        std=[] if autoencoder.discrete else std.tolist(),
        token_counts=counts.tolist(),
    )


def _encode(autoencoder: "Autoencoder", images: Tensor, sums: Tensor) -> Tensor:
    """Moments (fp16) or tokens of a batch; adds first and second moments of samples to `sums`."""
    posterior = autoencoder.encode(images)
    if autoencoder.discrete:
        tokens = autoencoder.quantise(posterior.mean).tokens
        small = autoencoder.codebook_size <= torch.iinfo(torch.int16).max + 1
        return tokens.to(torch.int16 if small else torch.int32)
    mean = posterior.mean.double()
    second = mean.square()
    parts = [posterior.mean]
    if posterior.logvar is not None:
        second = second + posterior.logvar.double().exp()
        parts.append(posterior.logvar.clamp(*LOGVAR_RANGE))
    sums[0] += mean.sum((0, 2, 3))
    sums[1] += second.sum((0, 2, 3))
    return torch.cat(parts, 1).half()


class LatentCache:
    """Reads a cache.

    Raises:
        FileNotFoundError: no cache there.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / "index.json"
        if not index.is_file():
            raise FileNotFoundError(f"{index}: no such file; made by stage cache_latents")
        content = json.loads(index.read_text())
        self.spec = LatentSpec(**content["spec"])
        self.shards = [
            np.load(folder / shard["file"], mmap_mode="r", allow_pickle=False)
            for shard in content["shards"]
        ]
        self.starts = np.cumsum([0, *(len(shard) for shard in self.shards)])
        self.labels = torch.from_numpy(np.load(folder / "labels.npy", allow_pickle=False))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def tokens(self, indices: np.ndarray, flips: np.ndarray) -> Tensor:
        """Tokens of images, B h w; `flips` picks the flipped copy."""
        return torch.from_numpy(self._rows(indices, flips).astype(np.int64))

    def moments(
        self, indices: np.ndarray, flips: np.ndarray, place: Place = Tensor.float
    ) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance (None for a deterministic encoder) of images, B c h w, fp32.

        Args:
            indices: of the images.
            flips: which of them flipped.
            place: moves what is stored, fp16, to a device.
        """
        rows = place(torch.from_numpy(self._rows(indices, flips))).float()
        if self.spec.kind == "deterministic":
            return rows, None
        mean, logvar = rows.chunk(2, dim=1)
        return mean, logvar

    def _rows(self, indices: np.ndarray, flips: np.ndarray) -> np.ndarray:
        shard_of = np.searchsorted(self.starts, indices, side="right") - 1
        rows = np.empty((len(indices), *self.shards[0].shape[2:]), self.shards[0].dtype)
        for shard in np.unique(shard_of):
            picked = shard_of == shard
            local = indices[picked] - self.starts[shard]
            rows[picked] = self.shards[shard][local, flips[picked].astype(np.int64)]
        return rows
