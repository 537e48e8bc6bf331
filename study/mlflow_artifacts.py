"""Pictures, sample grids by step and fine-tuned autoencoders, as artifacts of an MLflow run.

Only `study.mlflow_store` imports this module.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from study import paths

if TYPE_CHECKING:
    from mlflow import MlflowClient

STEPS = "-steps.png"
"""A picture with a row for each checkpoint."""
MODEL = "autoencoder"
"""Folder of a fine-tuned autoencoder among a run's artifacts."""
# Copied into the artifact store; larger ones stay where DVC keeps them.
_LARGEST_MODEL_BYTES = 200e6


def log_artifacts(client: "MlflowClient", run: str, path: Path, content: dict[str, Any]) -> None:
    """Log what belongs to a metrics file.

    Args:
        client: of the store.
        run: its identifier.
        path: the metrics file; its pictures stand beside it.
        content: what it holds.
    """
    stem = path.with_suffix("").name
    for picture in sorted(path.parent.glob(f"{stem}*.png")):
        suffix = picture.name.removeprefix(stem)
        if suffix == STEPS:
            _log_steps(client, run, picture, content)
        elif suffix == ".png" or (suffix.startswith("-") and suffix.count("-") == 1):
            client.log_artifact(run, str(picture))
    if content["stage"] == "finetune_autoencoder":
        _log_autoencoder(client, run, path, content)


def _log_steps(client: "MlflowClient", run: str, picture: Path, content: dict[str, Any]) -> None:
    """Each row of the picture at its step: the viewer shows them with a slider."""
    from PIL import Image

    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    steps = sorted({r["step"] for r in content["records"] if r["step"] is not None})
    if not steps or len(pixels) % len(steps):
        return
    for step, row in zip(steps, np.split(pixels, len(steps)), strict=True):
        client.log_image(run, np.ascontiguousarray(row), key="samples", step=step, synchronous=True)


def _log_autoencoder(client: "MlflowClient", run: str, path: Path, content: dict[str, Any]) -> None:
    from study.autoencoders.weights import FILES

    instance = content["instance"]
    source = paths.outputs(content["cell"]["profile"], content["stage"], instance)
    files = [source / name for name in FILES]
    if not all(file.is_file() for file in files):
        return
    if sum(file.stat().st_size for file in files) > _LARGEST_MODEL_BYTES:
        return
    from study.exchange.export import export
    from study.tracking import read_metrics

    beside = path.parents[1] / "evaluate_autoencoder" / path.name
    evaluated = read_metrics(beside) if beside.is_file() else None
    with TemporaryDirectory() as folder:
        export(source, Path(folder) / MODEL, content, evaluated)
        client.log_artifacts(run, str(Path(folder) / MODEL), MODEL)
