"""Images and parquet files that are damaged: a clean error, or a store that is whole."""

import io
import json
import random
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from study import paths
from study.config import ConfigError, DataConfig, PrepareDataConfig, Source
from study.data.store import PixelStore
from study.data.write import write_store

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MODES = ("RGB", "L", "P", "RGBA", "CMYK", "1")
IMAGES = 4
"""Per split, of two classes."""


def picture(rng: random.Random) -> bytes:
    """A small picture in a random format and a mode that it can hold."""
    kind, mode = rng.choice(FORMATS), rng.choice(MODES)
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (20, 24, 3), np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind)
    except (OSError, ValueError):
        image.convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with bytes changed, cut, doubled or put in front."""
    changed = bytearray(content)
    kind = rng.randrange(5)
    if kind == 0:
        for _ in range(rng.randint(1, 20)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    elif kind == 1:
        del changed[rng.randrange(len(changed)) :]
    elif kind == 2:
        place = rng.randrange(len(changed))
        changed[place:place] = changed[: rng.randrange(1, 64)]
    elif kind == 3:
        # Headers say how large a picture is: make it huge.
        for place in range(min(32, len(changed))):
            if rng.random() < 0.2:
                changed[place] = 0xFF
    else:
        changed[:0] = rng.randbytes(8)
    return bytes(changed)


def write_folder(folder: Path, rng: random.Random) -> Source:
    for split in ("train", "validation"):
        for number in range(IMAGES):
            file = folder / split / f"class_{number % 2}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            content = picture(rng)
            file.write_bytes(damaged(content, rng) if rng.random() < 0.4 else content)
    return Source.image_folder


def write_parquet(folder: Path, rng: random.Random) -> Source:
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        contents = [picture(rng) for _ in range(IMAGES)]
        rows = {"image": [{"bytes": content} for content in contents], "label": [0, 1, 0, 1]}
        file = folder / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.table(rows), file)
        if rng.random() < 0.7:
            file.write_bytes(damaged(file.read_bytes(), rng))
    return Source.parquet


def prepared(root: Path, source: Source) -> str:
    """Prepare the data below `root`; what comes out must be whole, or refused in one line."""
    columns = source is Source.parquet
    data = DataConfig(
        source=source,
        path="data/x",
        revision=None,
        image_column="image" if columns else None,
        label_column="label" if columns else None,
        num_classes=None,
    )
    sizes = PrepareDataConfig(image_size=16, train_images=None, validation_images=None, seed=0)
    began, folder = time.monotonic(), root / "store"

    def unwatched(records: Iterable[Any], total: int, text: str) -> Iterable[Any]:
        return records

    refusal = None
    try:
        write_store(folder, data, sizes, unwatched)
    except ConfigError as error:
        refusal = str(error)
    assert time.monotonic() - began < 10
    if refusal is not None:
        assert len(refusal.splitlines()) == 1, refusal
        assert not (folder / "manifest.json").exists()
        return "refused"
    store, manifest = PixelStore(folder), json.loads((folder / "manifest.json").read_text())
    for split in ("train", "validation"):
        images, labels = store.images(split), store.labels(split)
        assert images.shape == (manifest[split]["count"], 3, 16, 16)
        assert len(labels) == len(images)
        assert not manifest[split]["rejected"]
    return "whole"


def outcomes(root: Path, write: Any, seeds: range) -> set[str]:
    found = set()
    for seed in seeds:
        for name in ("data", "store"):
            shutil.rmtree(root / name, ignore_errors=True)
        found.add(prepared(root, write(root / "data" / "x", random.Random(seed))))
    return found


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("write", [write_folder, write_parquet])
def test_damaged_data_are_refused_or_read_whole(root: Path, write: Any) -> None:
    assert outcomes(root, write, range(60)) == {"whole", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_folder, write_parquet])
def test_a_thousand_damaged_sets(root: Path, write: Any) -> None:
    outcomes(root, write, range(1000, 1500))
