"""Reads the store of decoded images, whatever their source; `study.data.write` makes it."""

import json
from pathlib import Path

import numpy as np
import torch

from study import paths


class PixelStore:
    """Reads what `write_store` wrote; images stay on disk until they are indexed."""

    def __init__(self, folder: Path) -> None:
        """Open a finished store.

        Raises:
            FileNotFoundError: there is none.
        """
        manifest = folder / "manifest.json"
        if not manifest.is_file():
            raise FileNotFoundError(
                f"{paths.shown(manifest)}: no such file; run dvc repro: made by stage prepare_data"
            )
        values = json.loads(manifest.read_text())
        self.folder = folder
        self.image_size: int = values["image_size"]
        self.num_classes: int = values["num_classes"]
        self.class_names: list[str] = values["class_names"]

    def images(self, split: str) -> np.ndarray:
        """Read-only memory map, uint8 of shape (N, 3, H, W)."""
        return np.load(self.folder / f"images-{split}.npy", mmap_mode="r", allow_pickle=False)

    def labels(self, split: str) -> np.ndarray:
        """Classes, int64 of shape (N,)."""
        return np.load(self.folder / f"labels-{split}.npy", allow_pickle=False)


def to_float(images: torch.Tensor) -> torch.Tensor:
    """From uint8 to [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """From [-1, 1] to uint8; values beyond are clamped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
