"""Rows that want to bring other files of this machine into the store, and pictures cut short."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from study.config import DataConfig, PrepareDataConfig
from study.data.pictures import decode
from study.data.sources import open_source

Build = Callable[..., Any]


@pytest.fixture
def secret(root: Path, picture: Callable[..., bytes]) -> Path:
    """A picture outside the data folder."""
    file = root / "secret.png"
    file.write_bytes(picture(200))
    return file


def write_rows(folder: Path, images: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": list(range(len(images)))})
    for split in ("train", "validation"):
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


@pytest.mark.parametrize("kind", ["parquet", "huggingface"])
@pytest.mark.parametrize("escape", ["absolute", "relative", "link"])
def test_a_row_cannot_name_a_file_outside(
    source: Callable[..., DataConfig],
    prepare: Callable[..., PrepareDataConfig],
    root: Path,
    secret: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    escape: str,
) -> None:
    folder = root / "data" / "x"
    folder.mkdir(parents=True)
    (folder / "link.png").symlink_to(secret)
    names = {"absolute": secret, "relative": folder / "../../secret.png"}
    path = names.get(escape, folder / "link.png")
    write_rows(folder, [{"bytes": None, "path": str(path)}])
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", root / "cache")
    config = source(kind, path=str(folder) if kind == "huggingface" else None)
    (record,) = open_source(config, prepare(), "train")
    reason = decode(record, size=16)
    assert isinstance(reason, str)
    assert ("downloaded with" if kind == "huggingface" else "no bytes") in reason


def test_a_row_of_the_hub_may_name_a_file_of_the_data_set(
    source: Callable[..., DataConfig],
    prepare: Callable[..., PrepareDataConfig],
    picture: Callable[..., bytes],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = root / "data" / "x"
    write_rows(folder, [{"bytes": None, "path": str(folder / "a.png")}])
    (folder / "a.png").write_bytes(picture(7))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", root / "cache")
    (record,) = open_source(source("huggingface", path=str(folder)), prepare(), "train")
    assert record.load() == picture(7)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_picture_that_was_cut_short_is_no_picture(kind: str) -> None:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    from study.data.images import Record

    whole = buffer.getvalue()
    assert isinstance(decode(Record("a", 0, lambda: whole), 32), np.ndarray)
    assert isinstance(decode(Record("a", 0, lambda: whole[: len(whole) // 2]), 32), str)
