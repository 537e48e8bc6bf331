"""From a source to the store of decoded images: uint8 arrays, labels and, last, a manifest."""

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from study.config import ConfigError, DataConfig, PrepareDataConfig
from study.data.images import SPLITS, Images, Record
from study.data.pictures import decode, refuse_bombs
from study.data.sources import count_to_keep, file_sha256, open_source

Progress = Callable[[Iterable[Record], int, str], Iterable[Record]]

_CHUNK = 256  # images decoded before they are written
_MAX_REJECTED = 0.01  # of a split


def write_store(
    folder: Path, data: DataConfig, prepare: PrepareDataConfig, progress: Progress
) -> dict[str, Any]:
    """Decode a source into `folder`; the manifest is written last, once all arrays are there.

    Args:
        folder: created if missing; an earlier store in it is replaced.
        data: the source.
        prepare: image size and number of images.
        progress: `study.progress.track`, or a function like it.

    Returns:
        The manifest: size, classes and, for each split, counts, digests and rejected images.

    Raises:
        ConfigError: data are missing, too few, or more than 1 % cannot be decoded.
    """
    sources = {split: open_source(data, prepare, split) for split in SPLITS}
    counts = {split: count_to_keep(sources[split], prepare, split) for split in SPLITS}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    class_names = sources["train"].class_names
    manifest: dict[str, Any] = {
        "image_size": prepare.image_size,
        "num_classes": len(class_names),
        "class_names": class_names,
    }
    for split, images in sources.items():
        records = progress(images, counts[split], f"prepare {split} images")
        labels, rejected = _write_images(
            folder / f"images-{split}.npy", images, records, counts[split], prepare.image_size
        )
        with _complete(folder / f"labels-{split}.npy") as file:
            np.save(file, labels)
        manifest[split] = _split_record(folder, split, class_names, labels, rejected)
    with _complete(folder / "manifest.json") as file:
        file.write(json.dumps(manifest, indent=2).encode() + b"\n")
    return manifest


def read_images(data: DataConfig, prepare: PrepareDataConfig, split: str) -> np.ndarray:
    """Decode the first images of a split into memory, uint8 N 3 size size.

    Raises:
        ConfigError: data are missing, too few, or more than 1 % cannot be decoded.
    """
    images = open_source(data, prepare, split)
    count = count_to_keep(images, prepare, split)
    arrays: list[np.ndarray] = []
    rejected: list[dict[str, str]] = []
    with refuse_bombs():
        for record in images:
            if len(arrays) == count:
                break
            pixels = decode(record, size=prepare.image_size)
            if isinstance(pixels, str):
                rejected.append({"name": record.name, "reason": pixels})
                _check_rejected(rejected, count, images.origin)
            else:
                arrays.append(pixels)
    return np.stack(arrays)


def _write_images(
    path: Path, images: Images, records: Iterable[Record], count: int, size: int
) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Write the first `count` decodable images; returns their labels, and those set aside."""
    labels: list[int] = []
    rejected: list[dict[str, str]] = []
    remaining = iter(records)
    threads = min(16, os.cpu_count() or 1)
    # Appended, not a memory map: a full disk is then an error of write, not a dead process.
    with _complete(path) as file, refuse_bombs(), ThreadPoolExecutor(threads) as pool:
        file.write(_header(0, size))
        while chunk := list(islice(remaining, min(_CHUNK, count - len(labels)))):
            decoded = pool.map(partial(decode, size=size), chunk)
            for record, pixels in zip(chunk, decoded, strict=True):
                if isinstance(pixels, str):
                    rejected.append({"name": record.name, "reason": pixels})
                    _check_rejected(rejected, count, images.origin)
                else:
                    file.write(pixels.data)
                    labels.append(record.label)
        file.seek(0)
        file.write(_header(len(labels), size))
    return np.array(labels, dtype=np.int64), rejected


def _check_rejected(rejected: list[dict[str, str]], count: int, origin: str) -> None:
    if len(rejected) > _MAX_REJECTED * count:
        first = rejected[0]
        raise ConfigError(
            f"{origin}: {len(rejected)} of {count} images cannot be decoded: must be at most 1 %; "
            f"first: {first['name']} ({first['reason']})"
        )


def _split_record(
    folder: Path,
    split: str,
    class_names: list[str],
    labels: np.ndarray,
    rejected: list[dict[str, str]],
) -> dict[str, Any]:
    per_class = np.bincount(labels, minlength=len(class_names))
    if split == "train" and not per_class.all():
        name = class_names[int(per_class.argmin())]
        raise ConfigError(f"class {name!r}: no train image that can be decoded: must have one")
    return {
        "count": len(labels),
        "class_counts": per_class.tolist(),
        "images_sha256": file_sha256(folder / f"images-{split}.npy"),
        "labels_sha256": file_sha256(folder / f"labels-{split}.npy"),
        "rejected": rejected,
    }


def _header(count: int, size: int) -> bytes:
    """Header of a .npy file; numpy pads it so that its length does not depend on the count."""
    buffer = io.BytesIO()
    shape = (count, 3, size, size)
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


@contextmanager
def _complete(path: Path) -> Iterator[BinaryIO]:
    """Write under another name and rename at the end: the path never holds half a file."""
    partial_path = path.with_name(f"{path.name}.partial")
    try:
        with partial_path.open("wb") as file:
            yield file
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)
