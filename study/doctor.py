"""What is wrong with this machine, this checkout and its inputs, one line a fault with its cure."""

import fcntl
import json
import shutil
import sqlite3
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from study import paths
from study.config import (
    AutoencoderConfig,
    ConfigError,
    DataConfig,
    Source,
    load_grid,
    load_group,
)

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `cure` is empty where all is well."""

    check: str
    text: str
    cure: str = ""


def examine() -> list[Finding]:
    """Everything that was found, faults and what is well, in the order of the checks."""
    return [finding for check in CHECKS for finding in _safely(check)]


def report(findings: list[Finding], as_json: bool) -> str:
    """Faults, or all findings as JSON."""
    if as_json:
        return json.dumps([asdict(finding) for finding in findings], indent=1)
    faults = [f"{f.check}: {f.text}; {f.cure}" for f in findings if f.cure]
    return "\n".join(faults or [f"{f.check}: {f.text}" for f in findings])


def _safely(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:
        # A check that breaks is a finding itself; the others still run.
        text = " ".join(str(error).split())[:300]
        name = check.__name__.strip("_").replace("_", " ")
        yield Finding(name, f"{type(error).__name__}: {text}", "mend what the line names")


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON
    yield Finding("python", version, "" if fits else "use Python 3.11 to 3.13: make PYTHON=...")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    wrong = []
    for text in project["dependencies"]:
        wanted = Requirement(text)
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            found = "missing"
        if found == "missing" or not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} {found}, needed {wanted.specifier or 'any'}")
    text = ", ".join(wrong) or f"{len(project['dependencies'])} as required"
    yield Finding("packages", text, "make setup" if wrong else "")


def _gpu() -> Iterator[Finding]:
    import torch

    from study.command import LEAST_FREE_GPU

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        text = f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        busy = free < LEAST_FREE_GPU * total
        yield Finding("gpu", text, "stop what else uses the GPU: nvidia-smi" if busy else "")
    elif shutil.which("nvidia-smi"):
        text = f"torch {torch.__version__} sees none, although nvidia-smi is here"
        yield Finding("gpu", text, "install a torch built for the driver's CUDA version")
    else:
        yield Finding("gpu", "none; the CPU is used")


def _disk() -> Iterator[Finding]:
    from study.preflight import LEAST_FREE_BYTES

    free = shutil.disk_usage(paths.ROOT).free
    text = f"{free / 1e9:.0f} GB free"
    few = free < LEAST_FREE_BYTES
    yield Finding("disk", text, "free some: dvc gc --workspace removes old results" if few else "")


def _selected_profile() -> Iterator[Finding]:
    from study.preflight import check_grid

    cure = "python -m study use PROFILE"
    try:
        profile = str(load_grid(paths.GRID).get("profile"))
        check_grid(profile)
    except ConfigError as error:
        yield Finding("profile", str(error), f"mend it, then {cure}")
        return
    yield Finding("profile", f"{profile}: parameters, data, weights are fine")


def _inputs() -> Iterator[Finding]:
    """Whether local data and weights are still those that the manifests describe."""
    from study.autoencoders.weights import digest_weights, local
    from study.data.sources import digest_source
    from study.grid import manifest_file

    grid = load_grid(paths.GRID)
    cure = f"python -m study use {grid['profile']}, so that what depends on it runs again"
    names = {item["data"] for item in grid["prepare_data"].values()}
    for name in sorted(names):
        config = load_group(DataConfig, "data", name)
        if config.source in (Source.parquet, Source.image_folder):
            same = _same(manifest_file("data", name), digest_source(config))
            yield Finding("data", f"{name}: {_state(same)}", "" if same else cure)
    for name in sorted({item["autoencoder"] for item in grid["finetune_autoencoder"].values()}):
        config = load_group(AutoencoderConfig, "autoencoder", name)
        if local(config):
            same = _same(manifest_file("autoencoder", name), digest_weights(config))
            yield Finding("weights", f"{name}: {_state(same)}", "" if same else cure)


def _same(manifest: Path, found: dict[str, object]) -> bool:
    return manifest.is_file() and json.loads(manifest.read_text()) == found


def _state(same: bool) -> str:
    return "as its manifest says" if same else "changed since its manifest was written"


def _locks() -> Iterator[Finding]:
    """Which instances are being run; a lock that nobody holds is no fault."""
    held = []
    for file in sorted((paths.ROOT / "work" / "locks").glob("*")):
        with file.open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                held.append(f"{file.name} by {lock.read().strip()}")
    yield Finding("running", ", ".join(held) or "nothing")


def _unfinished() -> Iterator[Finding]:
    """States of stages that were interrupted; those outside the grid will not be taken up again."""
    grid = load_grid(paths.GRID) if paths.GRID.is_file() else {}
    for folder in sorted((paths.ROOT / "work").glob("*/*")):
        stage, instance = folder.parent.name, folder.name
        if stage == "locks" or not folder.is_dir():
            continue
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        text = f"{stage}@{instance}, {size / 1e6:.0f} MB"
        wanted = instance in (grid.get(stage) or {})
        cure = "" if wanted else f"not in the selected grid; rm -r {paths.shown(folder)}"
        yield Finding("unfinished", text, cure)


def _lock_file() -> Iterator[Finding]:
    """DVC's record of what has run, which it writes in place: killed in that, it leaves a part."""
    from yaml import YAMLError, safe_load

    file = paths.ROOT / "dvc.lock"
    if not file.is_file():
        yield Finding("dvc.lock", "not there yet; nothing has run")
        return
    stages = {}
    try:
        stages = safe_load(file.read_text())["stages"]
        cut = [name for name, entry in stages.items() if not _whole(entry)]
        text = f"incomplete: {', '.join(cut)}" if cut else ""
    except (YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        text = f"damaged: {' '.join(str(error).split())[:200]}"
    cure = "git checkout dvc.lock, or remove it: the cache restores" if text else ""
    yield Finding("dvc.lock", text or f"{len(stages)} instances", cure)


def _whole(entry: Any) -> bool:
    """Whether an instance's entry in `dvc.lock` has all that DVC writes."""
    deps, outs = entry.get("deps"), entry.get("outs")
    files = [*(deps or []), *(outs or [])]
    params = entry.get("params", {}).values()
    return (
        # DVC itself takes an entry without the rest for whole.
        bool(entry.get("cmd") and deps and outs)
        # A part of a digest may be a number.
        and all(isinstance(file.get(key), str) for file in files for key in ("path", "hash", "md5"))
        and all("size" in file and None not in file.values() for file in files)
        and all(isinstance(values, dict) for values in params)
    )


def _dvc() -> Iterator[Finding]:
    """DVC's record of who reads and writes what; it refuses to start while that is damaged."""
    file = paths.ROOT / ".dvc" / "tmp" / "rwlock"
    try:
        json.loads(file.read_text() if file.is_file() else "{}")
    except ValueError:
        cure = f"rm {paths.shown(file)}, once no dvc runs (make does it)"
        yield Finding("dvc", f"{paths.shown(file)}: damaged: a dvc was killed in writing it", cure)
        return
    yield Finding("dvc", "its locks are fine")


def _tracking() -> Iterator[Finding]:
    file = paths.TRACKING_DATABASE
    if not file.is_file():
        yield Finding("mlflow", "no database yet; the first report makes it")
        return
    cure = f"remove {file.name} and run python -m study track: it is made from the metrics files"
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=2)) as database:
            (answer,) = database.execute("PRAGMA quick_check").fetchone()
    except sqlite3.Error as error:
        yield Finding("mlflow", f"{file.name}: {error}", cure)
        return
    yield Finding("mlflow", f"{file.name}: {answer}", "" if answer == "ok" else cure)


CHECKS = (
    *(_python, _packages, _gpu, _disk, _selected_profile, _inputs),
    *(_locks, _unfinished, _lock_file, _dvc, _tracking),
)
