"""MLflow as a viewer of metrics files: opens the store, shows finished stages and running ones.

Only `study.tracking` imports this module; it also catches whatever fails here.
"""

import fcntl
import hashlib
import logging
import os
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import paths
from study.config import Cell, plain
from study.mlflow_artifacts import log_artifacts
from study.mlflow_content import (
    about,
    cell_tags,
    chart,
    curve,
    distance,
    origin_tags,
    parameters,
    point,
    records,
    run_name,
    times,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

RESULT = "study.result"
"""Tag: sha256 of the metrics file that a run shows."""
LIVE = "study.live"
"""Tag: true while the stage works."""
PARENT = "study.parent"
"""Tag: the profile, on the run that groups the others."""
SUPERSEDED = "superseded"
"""Tag: true where another run shows the instance's present result."""

_LOCK_TIMEOUT_S = 20.0
_BUSY_TIMEOUT_S = 5.0
# MLflow's own limits of a batch.
_BATCH_METRICS, _BATCH_PARAMS = 1000, 100
_NOTE_LENGTH = 5000
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # A server that does not answer must not hold up a study for MLflow's several minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class Store:
    """A profile's experiment."""

    def __init__(self, client: "MlflowClient", experiment: str) -> None:
        self.client = client
        self.experiment = experiment
        self._parent: str | None = None

    def parent(self, profile: str) -> str:
        """The run below which all runs of a profile stand."""
        if self._parent is None:
            query = f"tags.`{PARENT}` = '{profile}'"
            found = self.client.search_runs([self.experiment], query, max_results=1)
            if not found:
                tags = {PARENT: profile, "profile": profile, "mlflow.note.content": about(profile)}
                made = self.client.create_run(self.experiment, None, tags, f"profile {profile}")
                self.client.set_terminated(made.info.run_id, "FINISHED")
                found = [made]
            self._parent = found[0].info.run_id
        return self._parent

    def begin(self, cell: dict[str, Any], stage: str, instance: str, start: int) -> str:
        """Make the run of a stage instance; returns its identifier."""
        tags = cell_tags(cell, stage, instance)
        tags |= {"mlflow.parentRunId": self.parent(cell["profile"])}
        made = self.client.create_run(self.experiment, start, tags, run_name(cell, stage))
        return made.info.run_id

    def describe(self, profile: str) -> None:
        """Put links to charts that compare the arms into the experiment's description."""
        shown: dict[str, list[StoredRun]] = {}
        for run in (run for runs in self.runs().values() for run in runs):
            tags = run.data.tags
            if tags["stage"] == "evaluate_generator" and tags.get(SUPERSEDED) != "true":
                shown.setdefault(tags["generator"], []).append(run)
        charts = {}
        for name, runs in shown.items():
            metric = next(filter(None, (distance(run.data.metrics) for run in runs)), None)
            if metric is not None:
                ids = [run.info.run_id for run in runs]
                charts[name] = chart(self.experiment, ids, metric)
        while len(note := about(profile, charts)) > _NOTE_LENGTH and charts:
            charts.popitem()
        self.client.set_experiment_tag(self.experiment, "mlflow.note.content", note)

    def runs(self) -> dict[str, list["StoredRun"]]:
        """All runs of stage instances, by `stage@instance`."""
        found: dict[str, list[StoredRun]] = {}
        page = None
        while True:
            runs = self.client.search_runs([self.experiment], page_token=page)
            for run in runs:
                if name := run.data.tags.get("dvc.stage"):
                    found.setdefault(name, []).append(run)
            page = runs.token
            if not page:
                return found

    def show(self, path: Path, content: dict[str, Any], known: list["StoredRun"]) -> None:
        """Make one run show a metrics file, and mark the others of its instance.

        Args:
            path: the metrics file; curve and picture stand beside it.
            content: what it holds.
            known: runs of the same instance.
        """
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        current = [run for run in known if run.data.tags.get(RESULT) == digest]
        if not current:
            current = [run for run in known if run.info.run_id == content.get("tracking_run")]
            self._log(path, content, digest, current[0].info.run_id if current else None)
        kept = {run.info.run_id for run in current}
        for run in known:
            self._mark(run, times(content)[1], superseded=run.info.run_id not in kept)

    def _log(self, path: Path, content: dict[str, Any], digest: str, live: str | None) -> None:
        from mlflow.entities import Param, RunTag

        (start, end), client = times(content), self.client
        stage, instance = content["stage"], content["instance"]
        run = live or self.begin(content["cell"], stage, instance, start)
        seen = self._steps(run) if live else {}
        logged = [*records(content, start, end), *curve(path.with_suffix(".csv"), start, end)]
        metrics = [metric for metric in logged if metric.step not in seen.get(metric.key, ())]
        params = [Param(key, value) for key, value in parameters(content).items()]
        for first in range(0, len(metrics), _BATCH_METRICS):
            client.log_batch(run, metrics=metrics[first : first + _BATCH_METRICS])
        for first in range(0, len(params), _BATCH_PARAMS):
            client.log_batch(run, params=params[first : first + _BATCH_PARAMS])
        log_artifacts(client, run, path, content)
        client.set_terminated(run, "FINISHED", end)
        # Last: a run that was cut off before has no digest, so its file is logged again.
        tags = cell_tags(content["cell"], stage, instance) | origin_tags(content)
        tags |= {LIVE: "false", RESULT: digest}
        client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])

    def close_abandoned(self) -> None:
        """End, as KILLED, what looks as if it were running although no process works on it."""
        for name, runs in self.runs().items():
            abandoned = [run for run in runs if run.info.status == "RUNNING"]
            stage, _, instance = name.partition("@")
            if abandoned and not _worked_on(stage, instance):
                for run in abandoned:
                    self.client.set_tag(run.info.run_id, LIVE, "false")
                    self.client.set_terminated(run.info.run_id, "KILLED")

    def _steps(self, run: str) -> dict[str, set[int]]:
        keys, history = self.client.get_run(run).data.metrics, self.client.get_metric_history
        return {key: {metric.step for metric in history(run, key)} for key in keys}

    def _mark(self, run: "StoredRun", end: int, *, superseded: bool) -> None:
        if superseded and run.info.status == "RUNNING":
            if run.info.start_time > end:
                return  # the instance is being run again right now
            self.client.set_terminated(run.info.run_id, "KILLED")
        tag = str(superseded).lower()
        if run.data.tags.get(SUPERSEDED, "false") != tag:
            self.client.set_tag(run.info.run_id, SUPERSEDED, tag)


class Live:
    """The run of a stage that is still working."""

    def __init__(self, cell: Cell, stage: str, started: float, run_id: str | None = None) -> None:
        """Begin a run, or go on with the one that the stage had before it was interrupted."""
        self.store = open_store(cell.profile)
        self.shown = -1
        if run_id is not None and self._resumed(run_id):
            return
        begun = round(1000 * started)
        self.run_id: str = self.store.begin(plain(cell), stage, cell.instance, begun)
        self.store.client.set_tag(self.run_id, LIVE, "true")

    def _resumed(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        client = self.store.client
        try:
            known = client.get_run(run_id).data.metrics
            steps = [m.step for key in known for m in client.get_metric_history(run_id, key)]
            client.update_run(run_id, status="RUNNING")
            client.set_tag(run_id, LIVE, "true")
        except MlflowException:
            return False
        self.run_id, self.shown = run_id, max(steps, default=-1)
        return True

    def show(self, values: dict[str, float]) -> None:
        """Log a point of the curve, unless the run showed it before an interruption."""
        if values["step"] <= self.shown:
            return
        _probe()
        metrics = point(values, round(1000 * time.time()))
        self.store.client.log_batch(self.run_id, metrics=metrics)

    def close(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        _probe()
        self.store.client.set_tag(self.run_id, LIVE, "false")
        self.store.client.set_terminated(self.run_id, status)


def show_all(profile: str, finished: list[tuple[Path, dict[str, Any]]]) -> None:
    """Show metrics files, each by one run; what is shown already is left alone.

    Args:
        profile: whose experiment.
        finished: metrics files and what they hold.
    """
    store = open_store(profile)
    with _locked("sync"):
        runs = store.runs()
        for path, content in finished:
            store.show(path, content, runs.get(f"{content['stage']}@{content['instance']}", []))
        store.describe(profile)
        if "MLFLOW_TRACKING_URI" not in os.environ:
            store.close_abandoned()


def open_store(profile: str) -> Store:
    """The experiment of a profile, in the study's database or at `MLFLOW_TRACKING_URI`.

    Raises:
        OSError, sqlite3.Error, MlflowException: the store cannot be used.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return _open(given, profile, None)
    # Processes that create a database at the same time destroy it.
    with _locked("create"):
        _probe(mode="rwc")
        artifacts = f"{paths.TRACKING_ARTIFACTS.as_uri()}/{profile}"
        return _open(f"sqlite:///{paths.TRACKING_DATABASE}", profile, artifacts)


def _open(uri: str, profile: str, artifacts: str | None) -> Store:
    with warnings.catch_warnings():
        # Deprecations between MLflow and SQLAlchemy are no concern of the study's user.
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient
        from sqlalchemy import Engine, event

        if not event.contains(Engine, "connect", _unsynchronised):
            event.listen(Engine, "connect", _unsynchronised)
        for name in ("mlflow", "alembic"):
            # What fails is raised as well, and told in one line.
            logging.getLogger(name).setLevel(logging.CRITICAL)
        client = MlflowClient(uri)
        name = f"eqvae/{profile}"
        found = client.get_experiment_by_name(name)
        if found is None:
            note = {"mlflow.note.content": about(profile)}
            return Store(client, client.create_experiment(name, artifacts, note))
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return Store(client, found.experiment_id)


def _unsynchronised(connection: Any, record: object) -> None:
    """Let SQLite not wait for the disk: MLflow commits hundreds of times, and can be rebuilt."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


def _probe(mode: str = "rw") -> None:
    """Fail soon where MLflow would try for long: no file, a damaged, locked or read-only one."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return
    name = f"{paths.TRACKING_DATABASE.as_uri()}?mode={mode}"
    with closing(sqlite3.connect(name, timeout=_BUSY_TIMEOUT_S, uri=True)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("SELECT count(*) FROM sqlite_master")
        connection.rollback()


def _worked_on(stage: str, instance: str) -> bool:
    file = paths.lock(stage, instance)
    if not file.is_file():
        return False
    with file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _locked(purpose: str) -> Iterator[None]:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    path = Path(f"{paths.TRACKING_DATABASE}.{purpose}.lock")
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{paths.shown(path)} is held") from None
                time.sleep(0.05)
        yield
