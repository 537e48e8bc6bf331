"""What a stage instance is made of, as one digest: parameters, inputs, code, library and device."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from study import paths
from study.config import Cell, load_grid

_WHOLE_BYTES = 256_000_000
"""Larger files are read in samples: their sources are part of the digest as well."""
_BLOCK, _BLOCKS = 1 << 16, 64


def fingerprint(stage: str, cell: Cell, parameters: Any) -> str | None:
    """Digest of an instance's parameters and of the files that `dvc.yaml` names as its deps.

    Args:
        stage: its name.
        cell: which instance.
        parameters: resolved configuration, as JSON holds it.

    Returns:
        32 hexadecimal digits; None where the instance is not in the selected grid or a dependency
        is not there, so that nothing can be said.
    """
    from yaml import safe_load

    grid = load_grid(paths.GRID) if paths.GRID.is_file() else {}
    item = (grid.get(stage) or {}).get(cell.instance)
    pipeline = paths.ROOT / "dvc.yaml"
    if item is None or not pipeline.is_file():
        return None
    declared = safe_load(pipeline.read_text())["stages"][stage]["do"]["deps"]
    digest = hashlib.sha256(json.dumps([stage, parameters, _machine()], sort_keys=True).encode())
    for name in declared:
        path = paths.ROOT / _filled(name, cell.instance, item)
        if not path.exists():
            return None
        for file in _files(path):
            content = _content(file)
            digest.update(f"{file.relative_to(paths.ROOT)}\n{content}\n".encode())
    return digest.hexdigest()[:32]


def _filled(name: str, key: str, item: dict[str, Any]) -> str:
    text = name.replace("${key}", key)
    return re.sub(r"\$\{item\.(\w+)\}", lambda match: str(item[match[1]]), text)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in found if "__pycache__" not in file.parts)


def _content(file: Path) -> str:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE_BYTES:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256(str(size).encode())
        for block in range(_BLOCKS):
            stream.seek(block * (size - _BLOCK) // (_BLOCKS - 1))
            digest.update(stream.read(_BLOCK))
        return digest.hexdigest()


def _machine() -> list[str]:
    """What else decides the numbers: another torch or device rounds differently."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return [torch.__version__, gpu]
