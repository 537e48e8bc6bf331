"""What a stage instance leaves beside its outputs: records, curve, picture, protocol and cost.

A stage writes through `Run`; `finish()` puts the small files under `reports/<profile>/metrics/`.
They are the source of every table and figure. MLflow is a viewer of them, and this module is the
only place that touches it.
"""

import csv
import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from study import paths
from study.config import Cell, ConfigError, plain

# Columns of a record beside those of its cell; see `study.report.results`.
RECORD = ("metric", "value", "step", "images_seen", "n", "low", "high", "extractor")


class Run:
    """Collects what one stage instance measures."""

    def __init__(self, stage: str, cell: Cell, parameters: Any) -> None:
        self.stage = stage
        self.cell = cell
        self.parameters = plain(parameters)
        self.records: list[dict[str, Any]] = []
        self.protocol: dict[str, Any] = {}
        self.curve: list[dict[str, float]] = []
        self.notes: dict[str, float] = {}
        self.family: str | None = None
        self.started = time.time()

    def output(self) -> Path:
        """Folder of the instance's large outputs."""
        return paths.outputs(self.cell.profile, self.stage, self.cell.instance)

    def path(self, suffix: str) -> Path:
        """One of the instance's small files."""
        return paths.metrics(self.cell.profile, self.stage, self.cell.instance, suffix)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add a point to the instance's curve."""
        self.curve.append({"step": step, **{k: float(v) for k, v in values.items()}})

    def record(
        self,
        metric: str,
        value: float,
        *,
        step: int | None = None,
        images_seen: int | None = None,
        n: int | None = None,
        low: float | None = None,
        high: float | None = None,
        extractor: str | None = None,
    ) -> None:
        """Add a result: a row of `results.csv`; `low` and `high` bound it over samples."""
        row = (metric, float(value), step, images_seen, n, low, high, extractor)
        self.records.append(dict(zip(RECORD, row, strict=True)))

    def picture(self, images: "np.ndarray", columns: int) -> None:
        """Save images (uint8 N 3 H W) as one PNG, row by row."""
        from PIL import Image

        count, channels, height, width = images.shape
        rows = -(-count // columns)
        sheet = np.full((rows * columns, channels, height, width), 255, dtype=np.uint8)
        sheet[:count] = images
        sheet = sheet.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
        path = self.path(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(sheet.reshape(rows * height, columns * width, channels))
        picture.save(path, format="PNG", optimize=True)

    def cost(self, name: str, value: float) -> None:
        """Add a time or an amount of work: a row of `costs.csv`, never a result."""
        self.notes[name] = float(value)

    def finish(self) -> None:
        """Write the instance's metrics file and, if it logged a curve, the curve."""
        content = {
            "stage": self.stage,
            "instance": self.cell.instance,
            "cell": plain(self.cell),
            "family": self.family,
            "parameters": self.parameters,
            "records": self.records,
            "protocol": self.protocol,
            "cost": {"seconds": round(time.time() - self.started, 3), **self.notes},
            "environment": environment(),
        }
        if self.curve:
            self._write_curve()
        write_text(self.path(".json"), json.dumps(content, indent=1) + "\n")

    def _write_curve(self) -> None:
        names = list(dict.fromkeys(key for row in self.curve for key in row))
        path = self.path(".csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".csv.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.curve)
        partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a file that is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def environment() -> dict[str, Any]:
    """Commit, versions and device that produced a result."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit() -> str:
    """Commit of the working tree, with `-dirty` where it differs; `STUDY_COMMIT` overrides."""
    if given := os.environ.get("STUDY_COMMIT"):
        return given
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a metrics file.

    Raises:
        ConfigError: the file is no JSON mapping with the keys that `finish()` writes.
    """
    try:
        content = json.loads(path.read_text())
        missing = {"stage", "instance", "cell", "records", "cost"} - content.keys()
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{paths.shown(path)}: not a metrics file: {error}") from None
    if missing:
        raise ConfigError(f"{paths.shown(path)}: missing keys {sorted(missing)}")
    return content
