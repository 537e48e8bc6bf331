"""Where labelled images come from: four sources behind one interface; decodes nothing."""

import hashlib
import importlib.util
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from study.config import ConfigError, DataConfig, PrepareDataConfig, Source
from study.data import shapes
from study.data.columns import open_huggingface, open_parquet, parquet_files
from study.data.image_folder import image_files, open_image_folder
from study.data.images import SPLITS, Images, Loader, data_folder

# Beyond so many files of an image folder, hashing would take longer than the check it is for.
_HASHED_FILES = 1000


def open_source(config: DataConfig, prepare: PrepareDataConfig, split: str) -> Images:
    """Open `train` or `validation` of a source: lists files and labels, reads no image.

    Raises:
        ConfigError: the data are not there or not as the source requires.
    """
    if config.source is Source.shapes:
        images = _open_shapes(config, prepare, split)
    elif config.source is Source.parquet:
        images = open_parquet(config, split)
    elif config.source is Source.image_folder:
        images = open_image_folder(config, split)
    else:
        images = open_huggingface(config, split)
    images.check_labels()
    return images


def check_source(config: DataConfig, prepare: PrepareDataConfig) -> None:
    """Check what can be checked without decoding an image or reaching a network.

    Raises:
        ConfigError: one line that names file or field, value and rule.
    """
    if config.source is Source.huggingface:
        if importlib.util.find_spec("datasets") is None:
            raise ConfigError("source = huggingface: the package datasets must be installed")
        return
    for split in SPLITS:
        count_to_keep(open_source(config, prepare, split), prepare, split)


def count_to_keep(images: Images, prepare: PrepareDataConfig, split: str) -> int:
    """Number of images asked for, or all.

    Raises:
        ConfigError: there are fewer, or a class has none among those to train on.
    """
    limit = prepare.train_images if split == "train" else prepare.validation_images
    if limit is not None and limit > len(images):
        raise ConfigError(
            f"{split}_images = {limit}: must be at most {len(images)} ({images.origin})"
        )
    count = len(images) if limit is None else limit
    missing = np.setdiff1d(np.arange(len(images.class_names)), images.labels[:count])
    if split == "train" and missing.size:
        raise ConfigError(
            f"{images.origin}: class {images.class_names[missing[0]]!r} has no image among the "
            f"first {count}: must have at least one"
        )
    return count


def digest_source(config: DataConfig) -> dict[str, Any]:
    """What identifies the input: the files of a local source, the revision of a remote one.

    Parquet files are hashed one by one. An image folder gets one digest over names, sizes and,
    up to 1000 files, contents.
    """
    record: dict[str, Any] = {"source": config.source.value, "path": config.path}
    if config.source in (Source.shapes, Source.huggingface):
        return record | {"revision": config.revision}
    root = data_folder(config)
    if config.source is Source.parquet:
        files = sorted({path for split in SPLITS for path in parquet_files(root, split)})
        return record | {"files": [_entry(root, path) | _content(path) for path in files]}
    files = image_files(root)
    hashed = len(files) <= _HASHED_FILES
    digest = hashlib.sha256()
    for path in files:
        entry = _entry(root, path) | (_content(path) if hashed else {})
        digest.update(f"{list(entry.values())}\n".encode())
    entries = [_entry(root, path) for path in files]
    return record | {"sha256": digest.hexdigest(), "files": entries}


def file_sha256(path: Path) -> str:
    """Digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _entry(root: Path, path: Path) -> dict[str, Any]:
    return {"name": path.relative_to(root).as_posix(), "size": path.stat().st_size}


def _content(path: Path) -> dict[str, Any]:
    return {"sha256": file_sha256(path)}


def _open_shapes(config: DataConfig, prepare: PrepareDataConfig, split: str) -> Images:
    count = prepare.train_images if split == "train" else prepare.validation_images
    if count is None:
        raise ConfigError(f"{split}_images = None: must be a number for source shapes")
    if prepare.seed < 0:
        raise ConfigError(f"seed = {prepare.seed}: must be at least 0")
    assert config.num_classes is not None  # DataConfig requires it
    start = 0 if split == "train" else shapes.VALIDATION_START
    labels = np.arange(count) % config.num_classes

    def read() -> Iterator[tuple[str, Loader]]:
        for offset, label in enumerate(labels.tolist()):
            draw = partial(shapes.draw, start + offset, label, prepare.image_size, prepare.seed)
            yield f"{split}-{offset}", draw

    return Images(f"shapes, {split}", shapes.CLASS_NAMES[: config.num_classes], labels, read)
