"""What a metrics file becomes in MLflow: tags, parameters, metrics. Opens no store.

Only `study.mlflow_store` imports this module.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from study import paths

if TYPE_CHECKING:
    from mlflow.entities import Metric

# More points per series make the viewer slow and show no more.
_POINTS = 200
_PARAM_LENGTH = 500
_DISTANCE = re.compile(r"(fid|fd_inception|fd_in_domain)_\d+")


def run_name(cell: dict[str, Any], stage: str) -> str:
    """What one compares first, then the stage: runs of a generator stand below each other."""
    first = ("generator", "role", "autoencoder", "data")
    subject = next((str(cell[key]) for key in first if cell.get(key)), str(cell.get("profile")))
    words = [subject, cell.get("arm")]
    words += [cell["autoencoder"]] if cell.get("generator") and cell.get("autoencoder") else []
    words += [cell["scaling"]] if cell.get("scaling") == "fixed" else []
    words += [f"seed {cell['seed']}"] if cell.get("seed") is not None else []
    return f"{' '.join(str(word) for word in words if word)} | {stage}"


def about(profile: str, charts: Mapping[str, str] | None = None) -> str:
    """Description of a profile's experiment, in Markdown.

    Args:
        profile: what it holds.
        charts: addresses of charts by generator.
    """
    text = (
        f"**EQ-VAE reproducibility study, profile `{profile}`.** One run per stage instance, all "
        "below the run of the profile; `plain` is the control of every comparison. Distance "
        "against training step is the metric `fd_in_domain_N` of stage `evaluate_generator`, N "
        "the number of samples. Filter with `tags.stage`, `tags.arm`, `tags.generator`, "
        f"`tags.seed`, `tags.commit`. A viewer of `reports/{profile}/metrics/`, rebuilt by `python "
        f"-m study track {profile}`; the verdicts are in `reports/{profile}/report.html`."
    )
    links = [f"[{name}]({address})" for name, address in sorted((charts or {}).items())]
    head = f"Distance against training step, arm by arm: {', '.join(links)}.\n\n" if links else ""
    return head + text


def chart(experiment: str, runs: list[str], metric: str) -> str:
    """Address, within the viewer, of a metric's curves over steps.

    Args:
        experiment: its identifier.
        runs: theirs.
        metric: its name.
    """
    options = {
        "runs": json.dumps(runs),
        "metric": json.dumps(metric),
        "experiments": json.dumps([experiment]),
        "plot_metric_keys": json.dumps([metric]),
        "x_axis": "step",
    }
    # Parentheses and blanks would end a link of Markdown.
    return f"#/metric?{urlencode(options, quote_via=quote)}"


def distance(metrics: Iterable[str]) -> str | None:
    """Which of a run's metrics is the Frechet distance of its samples."""
    return next((name for name in sorted(metrics) if _DISTANCE.fullmatch(name)), None)


def cell_tags(cell: dict[str, Any], stage: str, instance: str) -> dict[str, str]:
    """Stage and choices of a cell."""
    choices = {key: str(value) for key, value in cell.items() if value is not None}
    return {**choices, "stage": stage, "instance": instance, "dvc.stage": f"{stage}@{instance}"}


def origin_tags(content: dict[str, Any]) -> dict[str, str]:
    """Family, commit, versions, device and the digests of the inputs."""
    made = content.get("environment", {})
    tags = {key: made.get(key) for key in ("commit", "torch", "python", "gpu")}
    tags |= {"family": content.get("family"), "mlflow.source.git.commit": made.get("commit")}
    inputs = _inputs(f"{content['stage']}@{content['instance']}")
    return {key: str(value) for key, value in (tags | inputs).items() if value is not None}


def parameters(content: dict[str, Any]) -> dict[str, str]:
    """Resolved parameters, keys joined by dots."""
    flat = _flatten(content.get("parameters") or {})
    return {
        _name(key): (value if isinstance(value, str) else json.dumps(value))[:_PARAM_LENGTH]
        for key, value in flat
        if value is not None and value != ""
    }


def times(content: dict[str, Any]) -> tuple[int, int]:
    """Start and end of the stage in milliseconds since the epoch."""
    finished = content.get("environment", {}).get("finished")
    end = datetime.fromisoformat(finished) if finished else datetime.now().astimezone()
    milliseconds = round(1000 * end.timestamp())
    return milliseconds - round(1000 * content["cost"].get("seconds", 0)), milliseconds


def records(content: dict[str, Any], start: int, end: int) -> Iterator["Metric"]:
    """Results by step, over the stage's time; n is in the name: no comparison may mix sizes."""
    from mlflow.entities import Metric

    last = max((record["step"] or 0 for record in content["records"]), default=0) or 1
    for record in content["records"]:
        size = "" if record["n"] is None else f"_{record['n']}"
        key = _name(f"{record['metric']}{size}")
        step = record["step"] or 0
        moment = start + (end - start) * step // last if step else end
        yield Metric(key, float(record["value"]), moment, step)


def curve(path: Path, start: int, end: int) -> Iterator["Metric"]:
    """Evenly chosen points of a curve, the last included, spread over the stage's time."""
    if not path.is_file():
        return
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    count = min(len(rows), _POINTS)
    for index in range(1, count + 1):
        row = rows[index * len(rows) // count - 1]
        values = {key: float(value) for key, value in row.items() if value}
        yield from point(values, start + (end - start) * index // count)


def point(values: dict[str, float], now: int) -> list["Metric"]:
    """One point of a curve: `step` and a value per series."""
    from mlflow.entities import Metric

    step = int(values["step"])
    return [Metric(_name(key), value, now, step) for key, value in values.items() if key != "step"]


def _name(text: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", text)


def _flatten(nested: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _inputs(name: str) -> dict[str, str]:
    """Digests by which DVC knew the inputs of a stage."""
    lock = paths.ROOT / "dvc.lock"
    if not lock.is_file():
        return {}
    entry = _locked_stages(lock, lock.stat().st_mtime_ns).get(name, {})
    return {f"input.{_name(item['path'])}": item.get("md5") for item in entry.get("deps", [])}


@lru_cache(maxsize=1)
def _locked_stages(lock: Path, modified: int) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(lock.read_text(), Loader=loader).get("stages") or {}
