"""Profile smoke, run once: every instance, every output, and what a change would run again."""

import csv
import hashlib
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pytest
from clones import Clone, restored_stages, run_stages

COLUMNS = (
    "profile,stage,data,family,autoencoder,arm,scaling,generator,seed,step,images_seen,"
    "metric,value,low,high,n,extractor"
)
NOTHING_TO_DO_S = 6.0
GENERATOR = "smoke-shapes-kl_small-eq-0-dit-standardised"


def digests(path: Path) -> dict[str, str]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()
    }


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_text(text)


def test_every_instance_ran(smoke: Clone):
    assert run_stages(smoke.log) == smoke.instances()


def test_every_output_is_there_and_not_empty(smoke: Clone):
    outputs = smoke.outputs()
    assert smoke.root / "reports/smoke/report.md" in outputs
    for path in outputs:
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        assert files, path
        assert all(file.stat().st_size for file in files), path


def test_everything_below_reports_is_an_output(smoke: Clone):
    made = {path for path in (smoke.root / "reports/smoke").rglob("*") if path.is_file()}
    listed = set(smoke.outputs())
    assert [path for path in made if not listed & {path, *path.parents}] == []


def test_results_have_the_documented_columns_and_a_distance_for_every_generator(smoke: Clone):
    with (smoke.root / "reports/smoke/results.csv").open(newline="") as file:
        assert file.readline().rstrip("\n") == COLUMNS
        rows = list(csv.DictReader(file, COLUMNS.split(",")))
    names = ("profile", "data", "autoencoder", "arm", "seed", "generator", "scaling")
    measured = {"-".join(row[n] for n in names) for row in rows if row["metric"] == "fd_in_domain"}
    assert measured == set(smoke.yaml("params/study.yaml")["evaluate_generator"])


def test_both_extractors_measure_and_copies_are_searched_for_at_every_checkpoint(smoke: Clone):
    with (smoke.root / "reports/smoke/results.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["stage"] == "evaluate_generator"]
    steps = {
        metric: sorted((*row.values(),)[:10] for row in rows if row["metric"] == metric)
        for metric in (
            *("fd_in_domain", "fd_in_domain_self_supervised"),
            *("nearest_ratio_in_domain", "nearest_ratio_pixels"),
        )
    }
    assert len({row[-1] for row in steps["fd_in_domain"]}) > 1
    assert steps["fd_in_domain_self_supervised"] == steps["fd_in_domain"]
    assert steps["nearest_ratio_in_domain"] == steps["fd_in_domain"]
    assert steps["nearest_ratio_pixels"] == steps["fd_in_domain"]


def test_raw_weights_are_measured_at_the_last_checkpoint(smoke: Clone):
    with (smoke.root / "reports/smoke/results.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["stage"] == "evaluate_generator"]
    found: dict[str, dict[tuple[str, ...], tuple[int, float]]] = {}
    for row in rows:
        cell = tuple(row[name] for name in ("autoencoder", "arm", "seed", "generator"))
        if row["step"]:
            own = found.setdefault(row["metric"], {})
            own[cell] = max(own.get(cell, (0, 0.0)), (int(row["step"]), float(row["value"])))
    averaged, raw = found["fd_in_domain"], found["fd_in_domain_raw"]
    assert {cell: step for cell, (step, _) in raw.items()} == {
        cell: step for cell, (step, _) in averaged.items()
    }
    assert all(raw[cell] != averaged[cell] for cell in raw)


def test_the_speed_up_has_every_cost(smoke: Clone):
    with (smoke.root / "reports/smoke/tables/speed_up.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["fraction"] == "1.0"]
    assert rows
    parts = ("", "_with_fine_tuning", "_with_autoencoder")
    units = ["steps", *(unit + part for unit in ("images", "gflop", "seconds") for part in parts)]
    for row in rows:
        # A factor, or nothing where the curves of two checkpoints bound none.
        assert {row[unit] for unit in units} & {"not recorded", "not run"} == set()


def test_every_metric_that_claims_are_judged_by_is_measured(smoke: Clone):
    with (smoke.root / "reports/smoke/results.csv").open(newline="") as file:
        measured = {row["metric"] for row in csv.DictReader(file)}
    endpoints = [e for c in smoke.yaml("params/claims.yaml")["claims"] for e in c["endpoints"]]
    assert endpoints
    for names in (endpoint[key] for endpoint in endpoints for key in ("metric", "against")):
        found = [name for name in names if any(fnmatch(metric, name) for metric in measured)]
        assert found or not names, names


def test_every_file_the_report_shows_exists(smoke: Clone):
    folder = smoke.root / "reports/smoke"
    text = (folder / "report.md").read_text()
    links = [part.split(")")[0].split("#")[0] for part in text.split("](")[1:]]
    assert links
    assert [link for link in links if link and not (folder / link).is_file()] == []


def test_mlflow_holds_one_run_per_instance_that_measures(smoke: Clone):
    with closing(sqlite3.connect(smoke.root / "mlflow.db")) as database:
        query = "SELECT value FROM tags WHERE key = 'dvc.stage'"
        names = [row[0] for row in database.execute(query)]
    without = ("check_study@", "render_report@")
    assert sorted(names) == sorted(n for n in smoke.instances() if not n.startswith(without))


def test_nothing_is_done_twice(smoke: Clone):
    log = smoke.repro()
    assert (run_stages(log), restored_stages(log)) == (set(), set())


@pytest.mark.slow
def test_nothing_to_do_takes_seconds(smoke: Clone):
    """Holds on a machine that does nothing else."""
    start = time.monotonic()
    smoke.repro()
    assert time.monotonic() - start < NOTHING_TO_DO_S


def test_a_deleted_generator_is_restored_and_nothing_else_runs(smoke: Clone):
    folder = smoke.root / "outputs/smoke/train_generator" / GENERATOR
    before = digests(folder)
    shutil.rmtree(folder)
    log = smoke.repro()
    assert (run_stages(log), restored_stages(log)) == (set(), {f"train_generator@{GENERATOR}"})
    assert digests(folder) == before


def test_a_deleted_metrics_file_is_restored_and_nothing_else_runs(smoke: Clone):
    path = smoke.root / "reports/smoke/metrics/evaluate_generator" / f"{GENERATOR}.json"
    before = digests(path)
    path.unlink()
    log = smoke.repro()
    assert (run_stages(log), restored_stages(log)) == (set(), {f"evaluate_generator@{GENERATOR}"})
    assert digests(path) == before


def test_an_edit_of_the_report_reruns_the_report_only(smoke: Clone):
    with edited(smoke.root / "study/report/names.py", '"""', '# Edited.\n"""'):
        assert run_stages(smoke.repro("--dry")) == {"render_report@smoke"}


def test_an_edit_of_one_generator_reruns_that_generator_only(smoke: Clone):
    path = smoke.root / "params/generator/dit.yaml"
    with edited(path, "num_timesteps: 1000", "num_timesteps: 500"):
        stale = run_stages(smoke.repro("--dry"))
    # A dry run changes no metrics file, so it does not reach the report.
    assert stale == {
        "check_study@smoke",
        f"train_generator@{GENERATOR}",
        f"evaluate_generator@{GENERATOR}",
    }


def test_another_profile_and_back_runs_nothing(smoke: Clone):
    grid = (smoke.root / "params/study.yaml").read_bytes()
    smoke.use("laptop")
    assert (smoke.root / "params/study.yaml").read_bytes() != grid
    smoke.use("smoke")
    assert (smoke.root / "params/study.yaml").read_bytes() == grid
    assert run_stages(smoke.repro("--dry")) == set()


def test_no_stage_opens_a_connection(smoke: Clone):
    assert not smoke.connections.exists(), smoke.connections.read_text()
