"""What a stage instance leaves beside its outputs: records, curve, picture, protocol and cost.

A stage writes through `Run`; `finish()` puts the small files under `reports/<profile>/metrics/`.
They are the source of every table and figure. MLflow is a viewer of them (`study.mlflow_store`),
and this module is the only place that touches it: `sync` shows finished stages, and a stage that
takes longer shows itself while it runs. Nothing here fails because MLflow does.
"""

import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from study import distributed, paths
from study.config import Cell, ConfigError, load_grid, plain
from study.fingerprint import fingerprint
from study.keeper import Keeper, complete
from study.scores import scores

if TYPE_CHECKING:
    from study.mlflow_store import Live

# Columns of a record beside those of its cell; see `study.report.results`.
RECORD = ("metric", "value", "step", "images_seen", "n", "low", "high", "extractor")


LIVE_AFTER_S = 60.0
"""A shorter stage is shown when it has finished: importing and opening MLflow costs 2 to 3 s."""
KEEP_EVERY_S = 60.0
"""Seconds between two saves of unfinished state; `STUDY_KEEP_EVERY_S` overrides."""
_COMPILED = ("_compile.compile_inner", "backward._backward_impl")
"""What torch calls the compilation of forward and of backward passes."""
_SHOW_EVERY_S = 15.0
# Samples of a checkpoint in the picture of all checkpoints, and their largest side.
_STEP_IMAGES, _STEP_SIDE = 8, 64
_RETRY_AFTER_S = 300.0


class Run:
    """Collects what one stage instance measures; a context that ends what it shows live.

    Of several processes each collects, and the leader writes and shows.
    """

    def __init__(self, stage: str, cell: Cell, parameters: Any) -> None:
        self.stage = stage
        self.cell = cell
        self.parameters = plain(parameters)
        self.records: list[dict[str, Any]] = []
        self.protocol: dict[str, Any] = {}
        self.curve: list[dict[str, float]] = []
        self.grids: dict[int, np.ndarray] = {}
        self.notes: dict[str, float] = {}
        self.family: str | None = None
        self.started = time.time()
        self.startup = self.started - psutil.Process().create_time()
        self._live: Live | None = None
        self._tracking_run: str | None = None
        self._keeper: Keeper | None = None
        self._next_show = self.started + LIVE_AFTER_S

    def __enter__(self) -> "Run":
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the live run, if there is one, by how the stage ended."""
        if kind is not None:
            stopped = issubclass(kind, SystemExit | KeyboardInterrupt)
            self.close("KILLED" if stopped else "FAILED")

    @property
    def keeper(self) -> Keeper:
        """What keeps the unfinished state, with curve, records and the time spent.

        From here on code that is compiled for several shapes is this run's.
        """
        if self._keeper is None:
            from study.acceleration import own_code

            digest = fingerprint(self.stage, self.cell, self.parameters)
            folder = paths.work(self.stage, self.cell.instance) / digest if digest else None
            own_code(digest)
            every_s = float(os.environ.get("STUDY_KEEP_EVERY_S", KEEP_EVERY_S))
            self._keeper = Keeper(folder, every_s, self._state, self._resume)
        return self._keeper

    def last_state(self) -> Path | None:
        """File of the newest state kept."""
        return self._keeper.last_state() if self._keeper else None

    def forget(self) -> None:
        """Clear the unfinished state, since the stage has finished."""
        if self._keeper is not None:
            self._keeper.clear()

    def _state(self) -> dict[str, Any]:
        live = self._live.run_id if self._live else self._tracking_run
        spent = time.time() - self.started
        import torch

        own = {"curve": self.curve, "records": self.records}
        grids = {step: torch.from_numpy(images) for step, images in self.grids.items()}
        return {**own, "grids": grids, "spent": spent, "tracking_run": live or ""}

    def _resume(self, state: dict[str, Any]) -> None:
        self.curve, self.records = state["curve"], state["records"]
        self.grids = {step: images.numpy() for step, images in state["grids"].items()}
        self.started = time.time() - state["spent"]
        self._tracking_run = state["tracking_run"] or None

    def output(self) -> Path:
        """Folder of the instance's large outputs."""
        return paths.outputs(self.cell.profile, self.stage, self.cell.instance)

    def path(self, suffix: str) -> Path:
        """One of the instance's small files."""
        return paths.metrics(self.cell.profile, self.stage, self.cell.instance, suffix)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add a point to the instance's curve."""
        self.curve.append({"step": step, **{k: float(v) for k, v in values.items()}})
        if distributed.leader() and time.time() >= self._next_show:
            self._show()

    def _show(self) -> None:
        self._next_show = time.time() + _RETRY_AFTER_S
        with _tolerated():
            from study.mlflow_store import Live

            begun = (self.cell, self.stage, self.started, self._tracking_run)
            self._live = self._live or Live(*begun)
            self._live.show(self.curve[-1])
            self._next_show = time.time() + _SHOW_EVERY_S

    def close(self, status: str) -> None:
        """End the live run as FINISHED, FAILED or KILLED; without one, do nothing."""
        live, self._live = self._live, None
        if live is not None:
            with _tolerated():
                live.close(status)

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

    def picture(self, images: "np.ndarray", columns: int, name: str = "") -> None:
        """Save images (uint8 N 3 H W) as one PNG, row by row; further ones by name."""
        from study.data.pictures import save_sheet

        if distributed.leader():
            save_sheet(images, columns, self.path(f"-{name}.png" if name else ".png"))

    def grid(self, step: int, images: "np.ndarray") -> None:
        """Keep the first of a checkpoint's samples (uint8 N 3 H W), small, for `-steps.png`."""
        side = images.shape[-1]
        stride = -(-side // _STEP_SIDE)
        self.grids[step] = np.array(images[:_STEP_IMAGES, :, ::stride, ::stride])

    def table(self, rows: list[dict[str, Any]], columns: list[str], name: str) -> None:
        """Save rows as the CSV of that name."""
        if distributed.leader():
            _write_rows(self.path(f"-{name}.csv"), columns, rows)

    def cost(self, name: str, value: float) -> None:
        """Add a time or an amount of work: a row of `costs.csv`, never a result."""
        self.notes[name] = float(value)

    def _cost(self) -> dict[str, float]:
        """Seconds of the work; of it those of the compiler, and before it those of start-up.

        Start-up and compilation are those of this process: of a resumed stage the last one's.
        """
        cost = {"seconds": time.time() - self.started, "startup_seconds": self.startup}
        if compiler := sys.modules.get("torch._dynamo.utils"):
            spent = (compiler.compilation_time_metrics.get(name, []) for name in _COMPILED)
            cost["compile_seconds"] = sum(map(sum, spent))
        return {name: round(value, 3) for name, value in cost.items()} | self.notes

    def finish(self) -> None:
        """Write the instance's metrics file and, if it logged a curve, the curve."""
        if not distributed.leader():
            return
        content = {
            "stage": self.stage,
            "instance": self.cell.instance,
            "cell": plain(self.cell),
            "family": self.family,
            "parameters": self.parameters,
            "records": self.records,
            "protocol": self.protocol,
            "cost": self._cost(),
            "environment": environment(),
        }
        if self._live is not None:
            content["tracking_run"] = self._live.run_id
        if self.curve:
            names = list(dict.fromkeys(key for row in self.curve for key in row))
            _write_rows(self.path(".csv"), names, self.curve)
        if self.grids:
            each = [self.grids[step] for step in sorted(self.grids)]
            self.picture(np.concatenate(each), len(each[0]), "steps")
        if summary := scores(self.records):
            write_text(self.path("-scores.yaml"), summary)
        write_text(self.path(".json"), json.dumps(content, indent=1) + "\n")
        self.close("FINISHED")


def sync(profile: str) -> None:
    """Make MLflow show the finished instances of a profile; repeating it changes nothing.

    Shown are the instances of the current grid or, for another profile than the selected one,
    all that have a metrics file. What fails is one line of warning.
    """
    with _tolerated():
        from study.mlflow_store import show_all

        show_all(profile, [(path, read_metrics(path)) for path in _finished(profile)])


def _finished(profile: str) -> list[Path]:
    grid = load_grid(paths.GRID) if paths.GRID.is_file() else {}
    files = sorted((paths.report(profile) / "metrics").glob("*/*.json"))
    if grid.get("profile") != profile:
        return files
    return [path for path in files if path.stem in (grid.get(path.parent.name) or {})]


@contextmanager
def _tolerated() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Whatever breaks in the viewer, results do not depend on it.
        text = " ".join(str(error).split())[:200]
        print(f"warning: MLflow: {type(error).__name__}: {text}", file=sys.stderr)


def write_text(path: Path, text: str) -> None:
    """Write a file that is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete(path) as partial:
        partial.write_text(text)


def _write_rows(path: Path, names: list[str], rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


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
        "processes": distributed.world(),
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
