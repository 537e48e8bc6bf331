"""Pictures of what an autoencoder does: its latents in colour, and decoded transformed latents."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder
from study.data.store import to_float, to_uint8
from study.evaluation.autoencoder import device_of
from study.evaluation.transformed import scaling, turn

BASIS_IMAGES = 64
"""Images, from the first, whose latents determine the colours."""
LATENT_ROWS = 4
TRANSFORMED_IMAGES = 2


class Sheet(NamedTuple):
    """Images that belong together, row by row."""

    images: np.ndarray
    """uint8 N 3 H W."""
    columns: int


class Colours:
    """Latents as colours: their first three principal components as red, green and blue.

    Channels are standardised first. A component's sign is that of its largest weight; its range
    from the 1st to the 99th percentile becomes 0 to 255. Below three channels the rest is grey.
    """

    def __init__(self, latents: Tensor) -> None:
        """Find the components of latents N c h w."""
        values = _rows(latents)
        self.mean, std = values.mean(0), values.std(0)
        self.std = std.where(std > 0, 1.0)
        values = (values - self.mean) / self.std
        axes = torch.linalg.eigh(values.T @ values).eigenvectors.flip(1)[:, :3]
        largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
        self.axes = torch.zeros(axes.shape[0], 3, dtype=axes.dtype)
        self.axes[:, : axes.shape[1]] = axes * largest.sign()
        low, high = np.percentile((values @ self.axes).numpy(), [1, 99], axis=0)
        self.low, self.high = torch.from_numpy(low), torch.from_numpy(high)

    def __call__(self, latents: Tensor, side: int) -> np.ndarray:
        """Latents B c h w as uint8 B 3 side side, each position a square of one colour."""
        components = (_rows(latents) - self.mean) / self.std @ self.axes
        width = self.high - self.low
        share = (components - self.low) / width.where(width > 0, 1.0)
        share = share.where(width > 0, 0.5)
        batch, _, height, _ = latents.shape
        pixels = to_uint8(2 * share - 1).view(batch, height, -1, 3).permute(0, 3, 1, 2)
        return enlarge(pixels.numpy(), side)


def enlarge(images: np.ndarray, side: int) -> np.ndarray:
    """Square images B C H H at another side, without blending pixels."""
    places = np.arange(side) * images.shape[-1] // side
    return images[..., places, :][..., places]


@torch.inference_mode()
def latent_sheet(autoencoder: Autoencoder, images: np.ndarray) -> Sheet:
    """A row per image: x, E(x), E(R x), R E(x), E(S x), S E(x); R turns by 90 degrees, S halves.

    Args:
        autoencoder: in eval mode.
        images: uint8 N 3 H W; the first are shown.
    """
    side, factor, device = images.shape[-1], autoencoder.factor, device_of(autoencoder)
    small = autoencoder.latent_side(images)
    x = to_float(torch.from_numpy(np.array(images[:BASIS_IMAGES])).to(device))
    latents = autoencoder.encode(x).mean
    colours = Colours(latents)
    x, latents = x[:LATENT_ROWS], latents[:LATENT_ROWS]
    columns = [np.array(images[:LATENT_ROWS]), colours(latents, side)]
    for tau in (turn(small, 1), scaling(small, 0.5)):
        moved = autoencoder.encode(tau.on_images(x, factor)).mean
        columns += [colours(moved, side), colours(tau.on_latents(latents), side)]
    return _sheet([np.stack(columns, 1)])


@torch.inference_mode()
def transform_sheet(autoencoder: Autoencoder, images: np.ndarray) -> Sheet:
    """Above tau x, below D(tau E(x)), for turns by 90 and 180 degrees and scales 0.5 and 0.25.

    Smaller images are enlarged. Arguments as those of `latent_sheet`.
    """
    side, factor, device = images.shape[-1], autoencoder.factor, device_of(autoencoder)
    small = autoencoder.latent_side(images)
    x = to_float(torch.from_numpy(np.array(images[:TRANSFORMED_IMAGES])).to(device))
    latents = autoencoder.encode(x).mean
    upper, lower = [], []
    for tau in (turn(small, 1), turn(small, 2), scaling(small, 0.5), scaling(small, 0.25)):
        moved, decoded = tau.on_images(x, factor), autoencoder.decode(tau.on_latents(latents))
        for row, pixels in ((upper, moved), (lower, decoded)):
            row.append(enlarge(to_uint8(pixels).cpu().numpy(), side))
    return _sheet([np.stack(row, 1).reshape(1, -1, 3, side, side) for row in (upper, lower)])


def _sheet(rows: list[np.ndarray]) -> Sheet:
    """Rows of images, each R C 3 S S, with a white gap between neighbours."""
    images = np.concatenate(rows)
    columns, side = images.shape[1], images.shape[-1]
    gap = max(1, side // 64)
    framed = np.pad(
        images.reshape(-1, 3, side, side),
        [(0, 0), (0, 0), (0, gap), (0, gap)],
        constant_values=255,
    )
    return Sheet(framed, columns)


def _rows(latents: Tensor) -> Tensor:
    return latents.double().cpu().permute(0, 2, 3, 1).flatten(0, 2)
