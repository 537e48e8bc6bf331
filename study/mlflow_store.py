"""MLflow as a viewer of metrics files: opens the store, logs finished cells and running ones.

Only `study.tracking` imports this module; it also catches whatever fails here.
"""

import fcntl
import hashlib
import logging
import os
import re
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import paths
from study.config import Cell

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as StoredRun

RESULT = "study.result"
"""Tag: sha256 of the metrics file that a run shows."""
LIVE = "study.live"
SUPERSEDED = "superseded"
_LOCK_TIMEOUT_S = 20.0
_BUSY_TIMEOUT_S = 5.0
_POINTS = 200
_BATCH_METRICS, _BATCH_PARAMS, _PARAM_LENGTH = 1000, 100, 500
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # A server that does not answer must not hold up a study for the default of several minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class Store:
    """A profile's experiment."""

    def __init__(self, client: "MlflowClient", experiment: str) -> None:
        self.client = client
        self.experiment = experiment

    def runs(self) -> dict[str, list["StoredRun"]]:
        """All runs by name."""
        found: dict[str, list[StoredRun]] = {}
        page = None
        while True:
            runs = self.client.search_runs([self.experiment], page_token=page)
            for run in runs:
                found.setdefault(run.info.run_name or "", []).append(run)
            page = runs.token
            if not page:
                return found

    def show(self, path: Path, content: dict[str, Any], known: list["StoredRun"]) -> None:
        """Make one run show a metrics file, and mark the others of its instance.

        Args:
            path: the metrics file; curve and picture stand beside it.
            content: what it holds.
            known: runs of the same name.
        """
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        current = [run for run in known if run.data.tags.get(RESULT) == digest]
        if not current:
            current = [run for run in known if run.info.run_id == content.get("tracking_run")]
            self._log(path, content, digest, current[0].info.run_id if current else None)
        kept = {run.info.run_id for run in current}
        for run in known:
            self._mark(run, _times(content)[1], superseded=run.info.run_id not in kept)

    def _log(self, path: Path, content: dict[str, Any], digest: str, live: str | None) -> None:
        from mlflow.entities import Param, RunTag

        start, end = _times(content)
        name = f"{content['stage']}@{content['instance']}"
        run = live or self.client.create_run(self.experiment, start, None, name).info.run_id
        seen = self._steps(run) if live else {}
        points = [
            metric
            for metric in [*_records(content, end), *_curve(path, start, end)]
            if metric.step not in seen.get(metric.key, ())
        ]
        parameters = [Param(key, value[:_PARAM_LENGTH]) for key, value in _parameters(content)]
        for first in range(0, len(points), _BATCH_METRICS):
            self.client.log_batch(run, metrics=points[first : first + _BATCH_METRICS])
        for first in range(0, len(parameters), _BATCH_PARAMS):
            self.client.log_batch(run, params=parameters[first : first + _BATCH_PARAMS])
        if (picture := path.with_suffix(".png")).is_file():
            self.client.log_artifact(run, str(picture))
        self.client.set_terminated(run, "FINISHED", end)
        # Last: a run that was cut off before has no digest, so its file is logged again.
        tags = {**cell_tags(content["cell"], content["stage"]), **_tags(content), RESULT: digest}
        self.client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])

    def _steps(self, run: str) -> dict[str, set[int]]:
        keys = self.client.get_run(run).data.metrics
        history = self.client.get_metric_history
        return {key: {metric.step for metric in history(run, key)} for key in keys}

    def _mark(self, run: "StoredRun", end: int, *, superseded: bool) -> None:
        running = run.info.status == "RUNNING"
        if superseded and running:
            if run.info.start_time > end:
                return  # this instance is being run again right now
            self.client.set_terminated(run.info.run_id, "KILLED")
        tag = str(superseded).lower()
        if run.data.tags.get(SUPERSEDED, "false") != tag:
            self.client.set_tag(run.info.run_id, SUPERSEDED, tag)


class Live:
    """The run of a stage that is still working."""

    def __init__(self, cell: Cell, stage: str, started: float) -> None:
        self.store = open_store(cell.profile)
        tags = {**cell_tags(plain(cell), stage), LIVE: "true"}
        name, start = f"{stage}@{cell.instance}", round(1000 * started)
        self.run = self.store.client.create_run(self.store.experiment, start, tags, name)

    @property
    def run_id(self) -> str:
        """MLflow's name of the run."""
        return self.run.info.run_id

    def show(self, point: dict[str, float]) -> None:
        """Log a point of the curve."""
        now = round(1000 * time.time())
        self.store.client.log_batch(self.run_id, metrics=_point(point, now))

    def close(self, status: str) -> None:
        """End the run."""
        self.store.client.set_tag(self.run_id, LIVE, "false")
        self.store.client.set_terminated(self.run_id, status)


def open_store(profile: str) -> Store:
    """The experiment of a profile, in the study's database or that of `MLFLOW_TRACKING_URI`.

    Raises:
        OSError, sqlite3.Error, MlflowException: the store cannot be used.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    remote = os.environ.get("MLFLOW_TRACKING_URI")
    if remote:
        return _experiment(remote, profile, None)
    with locked():
        _probe(paths.TRACKING_DATABASE)
        place = f"{paths.TRACKING_ARTIFACTS.as_uri()}/{profile}"
        return _experiment(f"sqlite:///{paths.TRACKING_DATABASE}", profile, place)


@contextmanager
def locked(purpose: str = "") -> Iterator[None]:
    """Hold the lock beside the database: processes that create it at once destroy it.

    Args:
        purpose: name of a lock of its own.

    Raises:
        TimeoutError: another process holds it.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    with Path(f"{paths.TRACKING_DATABASE}{purpose}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{paths.shown(Path(file.name))} is held") from None
                time.sleep(0.05)
        yield


def cell_tags(cell: dict[str, Any], stage: str) -> dict[str, str]:
    """The choices of a cell as tags."""
    tags = {"stage": stage, **{key: str(value) for key, value in cell.items() if value is not None}}
    return {**tags, "dvc.stage": f"{stage}@{'-'.join(_named(cell))}"}
