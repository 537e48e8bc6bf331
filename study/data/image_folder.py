"""Images in class folders (ImageNet layout): `train/<class>/*` and `validation/<class>/*`."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from study import paths
from study.config import ConfigError, DataConfig
from study.data.images import Images, Loader, data_folder, interleave

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
# The first that exists is taken.
_PARTS = {"train": ("train",), "validation": ("validation", "val")}


def open_image_folder(config: DataConfig, split: str) -> Images:
    """Open class folders; labels follow the sorted class names, images take classes in turn."""
    root = data_folder(config)
    class_names = [folder.name for folder in _class_folders(root, "train")]
    files, labels = [], []
    for folder in _class_folders(root, split):
        if folder.name not in class_names:
            raise ConfigError(f"{paths.shown(folder)}: must be a class of the training images too")
        found = _images(root, folder)
        files += found
        labels += [class_names.index(folder.name)] * len(found)
    order = interleave(np.array(labels, dtype=np.int64))

    def read() -> Iterator[tuple[str, Loader]]:
        for position in order.tolist():
            path = files[position]
            yield path.relative_to(root).as_posix(), path.read_bytes

    origin = f"{paths.shown(root)}, {split}"
    return Images(origin, class_names, np.array(labels, dtype=np.int64)[order], read)


def image_files(root: Path) -> list[Path]:
    """All images of both splits, sorted."""
    folders = [folder for split in _PARTS for folder in _class_folders(root, split)]
    return sorted(path for folder in folders for path in _images(root, folder))


def _class_folders(root: Path, split: str) -> list[Path]:
    parts = [root / name for name in _PARTS[split] if (root / name).is_dir()]
    if not parts:
        raise ConfigError(
            f"{paths.shown(root)}: no folder {split}: must have train/CLASS/ and validation/CLASS/"
        )
    _refuse_escape(root, parts[0])
    folders = [path for path in sorted(parts[0].iterdir()) if _visible(path) and path.is_dir()]
    if not folders:
        raise ConfigError(f"{paths.shown(parts[0])}: no class folders: must have one per class")
    for folder in folders:
        _refuse_escape(root, folder)
    return folders


def _images(root: Path, folder: Path) -> list[Path]:
    known = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    files = sorted(path for path in known if _visible(path))
    if not files:
        kinds = " ".join(sorted(SUFFIXES))
        raise ConfigError(f"{paths.shown(folder)}: no images: must have at least one of {kinds}")
    for path in files:
        _refuse_escape(root, path)
    return files


def _visible(path: Path) -> bool:
    """Neither a cache folder nor the `._` twin that macOS leaves beside a file."""
    return not path.name.startswith(".")


def _refuse_escape(root: Path, path: Path) -> None:
    """A data set from elsewhere must not pull other files of this machine into the store."""
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            f"{paths.shown(path)}: link that leaves {paths.shown(root)}: must point inside it "
            f"(the data folder itself may be a link)"
        )
