"""Images in columns: Hugging Face image-parquet files, and data sets of the hub."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from study import paths
from study.config import ConfigError, DataConfig
from study.data.images import Images, Loader, data_folder, interleave

# The first that exists is taken.
_PARTS = {"train": ("train",), "validation": ("validation", "val", "test")}


def parquet_files(root: Path, split: str) -> list[Path]:
    """Files of a split, sorted.

    Raises:
        ConfigError: there are none.
    """
    for part in _PARTS[split]:
        if files := sorted(root.glob(f"{part}-*.parquet")):
            return files
    raise ConfigError(f"{paths.shown(root)}: no {split}-*.parquet: must have at least one")


def open_parquet(config: DataConfig, split: str) -> Images:
    """Open image-parquet files; rows keep their order, so a limit takes the first ones."""
    root = data_folder(config)
    files = parquet_files(root, split)
    image, _ = _column_names(config)

    def read() -> Iterator[tuple[str, Loader]]:
        for path in files:
            with _parquet_errors(path):
                yield from _rows(path, image)

    labels = np.concatenate([_file_labels(path, config) for path in files])
    names = _parquet_class_names(parquet_files(root, "train"), config)
    return Images(f"{paths.shown(root)}, {split}", names, labels, read)


def open_huggingface(config: DataConfig, split: str) -> Images:
    """Open a data set of the hub (downloads it on first use), classes in turn."""
    from datasets import config as hub
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    origin = f"data set {config.path} at {config.revision or 'its newest revision'}"
    assert config.path is not None  # DataConfig requires it
    try:
        parts = load_dataset(config.path, revision=config.revision)
    except (OSError, ValueError, DatasetsError) as error:
        raise ConfigError(f"{origin}: cannot be loaded: {_first_line(error)}") from None
    part = next((name for name in _PARTS[split] if name in parts), None)
    if part is None or "train" not in parts:
        raise ConfigError(
            f"{origin}: has {', '.join(map(str, parts))}: must have train and validation"
        )
    image, label = _column_names(config)
    # The Arrow tables, not the rows: `datasets` would decode those.
    tables = {name: parts[name].data for name in ("train", part)}
    labels = {}
    for name, table in tables.items():
        _check_schema(table.schema, config, origin)
        labels[name] = _integers(table.column(label), f"{origin}: column {label!r}")
    order = interleave(labels[part])
    places = [Path(hub.HF_CACHE_HOME), Path(hub.HF_DATASETS_CACHE), Path(config.path)]

    def read() -> Iterator[tuple[str, Loader]]:
        cells = tables[part].column(image)
        for row in order.tolist():
            yield f"{part}#{row}", partial(_bytes_or_file, cells[row].as_py() or {}, places)

    names = getattr(parts["train"].features[label], "names", None) or _numbered(labels["train"])
    return Images(f"{origin}, {split}", names, labels[part][order], read)


def _column_names(config: DataConfig) -> tuple[str, str]:
    assert config.image_column is not None  # DataConfig requires both
    assert config.label_column is not None
    return config.image_column, config.label_column


def _check_schema(schema: pa.Schema, config: DataConfig, where: str) -> None:
    image, label = _column_names(config)
    for field, name in (("image_column", image), ("label_column", label)):
        if name not in schema.names:
            known = ", ".join(schema.names)
            raise ConfigError(f"{where}: no column {name!r}: {field} must be one of {known}")
    kind = schema.field(image).type
    if not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        raise ConfigError(f"{where}: column {image!r} is {kind}: must be a struct with bytes")
    kind = schema.field(label).type
    if not pa.types.is_integer(kind):
        raise ConfigError(f"{where}: column {label!r} is {kind}: must be integers")


def _file_labels(path: Path, config: DataConfig) -> np.ndarray:
    where = paths.shown(path)
    _, label = _column_names(config)
    with _parquet_errors(path):
        _check_schema(pq.read_schema(path), config, where)
        column = pq.read_table(path, columns=[label]).column(0)
    return _integers(column, f"{where}: column {label!r}")


def _rows(path: Path, image: str) -> Iterator[tuple[str, Loader]]:
    row = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256, columns=[image]):
            for cell in batch.column(0):
                value = cell.as_py() or {}
                # The path column is only a name: it may point anywhere on this machine.
                yield value.get("path") or f"{path.name}#{row}", partial(_bytes, value)
                row += 1


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        text = f"{paths.shown(path)}: not a readable parquet file: {_first_line(error)}"
        raise ConfigError(text) from None


def _integers(column: pa.ChunkedArray, where: str) -> np.ndarray:
    if column.null_count:
        raise ConfigError(f"{where}: {column.null_count} rows without a label: must have none")
    return column.to_numpy().astype(np.int64)


def _parquet_class_names(train_files: list[Path], config: DataConfig) -> list[str]:
    """Names from the metadata that `datasets` writes, else the labels themselves."""
    _, label = _column_names(config)
    with _parquet_errors(train_files[0]):
        metadata = pq.read_schema(train_files[0]).metadata or {}
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {})["features"]
        return [str(name) for name in features[label]["names"]]
    except (AttributeError, KeyError, TypeError, ValueError):
        return _numbered(np.concatenate([_file_labels(path, config) for path in train_files]))


def _numbered(labels: np.ndarray) -> list[str]:
    return [str(label) for label in range(len(np.unique(labels)))]


def _bytes(value: dict[str, Any]) -> bytes:
    if not value.get("bytes"):
        raise ValueError("holds no bytes")
    return value["bytes"]


def _bytes_or_file(value: dict[str, Any], places: list[Path]) -> bytes:
    """Hub data sets made of single files hold the path of the downloaded file."""
    if value.get("bytes") or not value.get("path"):
        return _bytes(value)
    file = Path(value["path"]).resolve()
    if not any(file.is_relative_to(place.resolve()) for place in places):
        raise ValueError(f"{value['path']}: must be a file that was downloaded with the data set")
    return file.read_bytes()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
