"""Metrics files of the current grid to tidy tables: results, summary over seeds, costs."""

import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from study import paths
from study.config import STAGES, Cell, ConfigError
from study.statistics import t_interval
from study.tracking import read_metrics, write_text

COLUMNS = (
    "profile",
    "stage",
    "data",
    "family",
    "autoencoder",
    "arm",
    "scaling",
    "generator",
    "seed",
    "step",
    "images_seen",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "extractor",
)
SUMMARY = (
    *(name for name in COLUMNS if name not in ("seed", "value", "low", "high")),
    "mean",
    "low",
    "high",
    "n_seeds",
)
_INTEGERS = ("seed", "step", "images_seen", "n")
_NUMBERS = ("value", "low", "high")
_CHOICES = ("data", "autoencoder", "arm", "scaling", "generator", "seed")
# Stages that run with `record=False`.
_WITHOUT_METRICS = ("check_study", "render_report")
# Curves of one metric stay together and run upwards.
_ORDER = (
    *("profile", "stage", "data", "family", "autoencoder", "arm", "scaling", "generator", "seed"),
    *("metric", "extractor", "n", "step", "images_seen", "value"),
)


def instances(grid: dict[str, Any]) -> Iterator[tuple[str, str, Cell]]:
    """Stage, instance and cell of everything that leaves metrics or will, in pipeline order."""
    known, planned = {item.name for item in fields(Cell)}, grid.get("planned") or {}
    for stage in STAGES:
        if stage in _WITHOUT_METRICS or not isinstance(grid.get(stage), dict):
            continue
        for instance, chosen in (grid[stage] | planned.get(stage, {})).items():
            choices = {key: value for key, value in (chosen or {}).items() if key in known}
            yield stage, instance, Cell(**{"profile": grid["profile"], **choices})


def read(grid: dict[str, Any], root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Contents of the metrics files of the grid's finished cells, by stage and instance.

    Args:
        grid: `params/study.yaml`.
        root: folder `reports/<profile>/metrics`.

    Raises:
        ConfigError: a file is damaged, stands under another cell's name, or holds a value that
            is not finite.
    """
    found = {}
    for stage, instance, _ in instances(grid):
        path = root / stage / f"{instance}.json"
        if path.is_file():
            content = read_metrics(path)
            _check(content, stage, instance, paths.shown(path))
            found[stage, instance] = content
    return found


def not_run(grid: dict[str, Any], root: Path) -> list[tuple[str, str]]:
    """Stage and instance of the grid's cells without a metrics file."""
    return [
        (stage, instance)
        for stage, instance, _ in instances(grid)
        if not (root / stage / f"{instance}.json").is_file()
    ]


def collect(grid: dict[str, Any], root: Path) -> pd.DataFrame:
    """All records of the grid's finished cells, one row per record; see `read` for arguments."""
    rows = [row for content in read(grid, root).values() for row in _rows(content)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    text = [name for name in COLUMNS if name not in (*_INTEGERS, *_NUMBERS)]
    types = dict.fromkeys(text, "str") | dict.fromkeys(_INTEGERS, "Int64")
    frame = frame.astype(types | dict.fromkeys(_NUMBERS, "float64"))
    return frame.sort_values(list(_ORDER), kind="stable", na_position="first", ignore_index=True)


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with Student-t 95 % interval (empty with one seed), one row per quantity."""
    keys = [name for name in SUMMARY if name in COLUMNS and name not in _NUMBERS]
    rows = []
    for key, group in results.groupby(keys, dropna=False, sort=False):
        values = group["value"].tolist()
        low, high = t_interval(values) or (None, None)
        mean = math.fsum(values) / len(values)
        rows.append((*key, mean, low, high, len(values)))  # type: ignore[misc]
    frame = pd.DataFrame(rows, columns=list(SUMMARY))
    kept = {name: results[name].dtype for name in keys}
    frame = frame.astype(kept | dict.fromkeys(("mean", "low", "high"), "float64"))
    order = [name for name in _ORDER if name in keys]
    return frame.sort_values(order, kind="stable", na_position="first", ignore_index=True)


def costs(grid: dict[str, Any], root: Path) -> pd.DataFrame:
    """Seconds and other amounts of work of every finished cell, with what produced it."""
    rows = []
    for (stage, instance), content in read(grid, root).items():
        made = content.get("environment", {})
        origin = {name: made.get(name) for name in ("gpu", "torch", "commit", "finished")}
        rows.append({"stage": stage, "instance": instance, **content["cost"], **origin})
    first, last = ["stage", "instance", "seconds"], ["gpu", "torch", "commit", "finished"]
    other = sorted({key for row in rows for key in row} - {*first, *last})
    return pd.DataFrame(rows, columns=[*first, *other, *last])


def where(frame: pd.DataFrame, column: str, *values: object) -> pd.DataFrame:
    """Rows whose column holds one of the values."""
    return pd.DataFrame(frame[frame[column].isin(values)])


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table; floats as the shortest text that reads back as the same number."""
    text = frame.to_csv(index=False, lineterminator="\n", float_format=lambda x: repr(float(x)))
    write_text(path, text)


def _rows(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cell = content["cell"]
    shared = {name: cell.get(name) for name in _CHOICES}
    shared |= {"profile": cell["profile"], "stage": content["stage"]}
    shared["family"] = content.get("family")
    for record in content["records"]:
        row = {**shared, **record}
        if cell.get("role"):
            row["metric"] = f"{record['metric']}_{cell['role']}"
        yield row


def _check(content: dict[str, Any], stage: str, instance: str, shown: str) -> None:
    if (content["stage"], content["instance"]) != (stage, instance):
        belongs = f"{content['stage']}/{content['instance']}"
        raise ConfigError(f"{shown}: holds the metrics of {belongs}")
    for record in content["records"]:
        for name in _NUMBERS:
            value = record[name]
            if value is None and name != "value":
                continue
            if not isinstance(value, int | float) or not math.isfinite(value):
                given = f"{record['metric']}.{name} = {value!r}"
                raise ConfigError(f"{shown}: {given}: must be a finite number")
