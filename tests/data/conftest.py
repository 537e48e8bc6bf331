import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from study import paths
from study.config import DataConfig, PrepareDataConfig, Source

Cells = list[tuple[bytes, int]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository root."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Encode a PNG of one grey level."""

    def encode(grey: int, width: int = 16, height: int = 16) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (width, height), (grey, grey, grey)).save(buffer, "PNG")
        return buffer.getvalue()

    return encode


@pytest.fixture
def source() -> Callable[..., DataConfig]:
    """Configuration of a source with the data at data/x."""

    def build(kind: str, num_classes: int | None = None, path: str | None = None) -> DataConfig:
        columns = kind in ("parquet", "huggingface")
        return DataConfig(
            source=Source(kind),
            path=path or (None if kind == "shapes" else "data/x"),
            revision=None,
            image_column="image" if columns else None,
            label_column="label" if columns else None,
            num_classes=num_classes,
        )

    return build


@pytest.fixture
def prepare() -> Callable[..., PrepareDataConfig]:
    def build(
        train: int | None = None, validation: int | None = None, size: int = 16, seed: int = 0
    ) -> PrepareDataConfig:
        return PrepareDataConfig(
            image_size=size, train_images=train, validation_images=validation, seed=seed
        )

    return build


@pytest.fixture
def make_parquet(root: Path) -> Callable[..., Path]:
    """Write data/x/SPLIT-00000-of-00001.parquet; returns data/x."""

    def make(split: str, cells: Cells, names: list[str] | None = None) -> Path:
        folder = root / "data" / "x"
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.table(
            {
                "image": [{"bytes": c, "path": f"{i}.png"} for i, (c, _) in enumerate(cells)],
                "label": pa.array(np.array([label for _, label in cells], dtype=np.int64)),
            }
        )
        if names:
            label = {"names": names, "_type": "ClassLabel"}
            features = {"image": {"_type": "Image"}, "label": label}
            value = json.dumps({"info": {"features": features}}).encode()
            table = table.replace_schema_metadata({b"huggingface": value})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=2)
        return folder

    return make


@pytest.fixture
def image_folder(root: Path, picture: Callable[..., bytes]) -> Path:
    """data/x with classes ant (3 images) and bee (2) in train, one of each in validation."""
    folder = root / "data" / "x"
    grey = 0
    for name, count in (("train/ant", 3), ("train/bee", 2), ("val/ant", 1), ("val/bee", 1)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            (folder / name / f"{index}.png").write_bytes(picture(grey))
            grey += 10
    return folder
