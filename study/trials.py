"""Kinds of stage instances, and how one of a kind is timed: by `study.probe`, in a root of its own.

Instances of a kind cost the same, since they share the sections of the profile.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from study import paths
from study.config import (
    STAGES,
    Cell,
    DataConfig,
    EvaluationConfig,
    Extractor,
    NetworkConfig,
    PrepareDataConfig,
    StudyError,
    load_grid,
    load_group,
)
from study.config.load import convert
from study.data.sources import count_to_keep, open_source

TRIED_IMAGES = 2048
"""Of each split, at most, with which stages are tried."""
_LEAST = {
    "prepare_data": 32,
    "reference_statistics": 64,
    "evaluate_autoencoder": 32,
    "cache_latents": 64,
    "evaluate_generator": 32,
}
_SHARED = ("data", "weights", "params")


def grid_instances(selected: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Stage, name and choices of all that runs of `params/study.yaml`, in pipeline order."""
    for stage in STAGES:
        for name, item in selected[stage].items():
            yield stage, name, {k: v for k, v in item.items() if k != "source"}


def kind_of(stage: str, item: dict[str, Any], selected: dict[str, Any]) -> tuple[str, ...]:
    """What instances that cost the same have in common."""
    names = {
        "train_network": ("role",),
        "pretrain_autoencoder": ("autoencoder",),
        "finetune_autoencoder": ("autoencoder", "arm"),
        "evaluate_autoencoder": ("autoencoder",),
        "cache_latents": ("autoencoder",),
        "train_generator": ("generator", "backbone", "autoencoder"),
        "evaluate_generator": ("generator", "sampler", "autoencoder"),
    }.get(stage, ())
    more = ()
    if stage == "evaluate_generator":
        trained = selected["train_generator"][_generator(item)]
        more = (str(trained["backbone"]),)
    return (stage, *(str(item[name]) for name in names), *more)


def _generator(item: dict[str, Any]) -> str:
    return Cell(**item).instance


def make_root(root: Path) -> Path:
    """A root that shares parameters and inputs with this one, and nothing else."""
    for name in _SHARED:
        if (paths.ROOT / name).exists():
            (root / name).symlink_to(paths.ROOT / name)
    return root


def try_instance(
    root: Path, stage: str, item: dict[str, Any], selected: dict[str, Any]
) -> dict[str, float]:
    """Seconds and bytes of a whole instance, from little of its work.

    Args:
        root: of `make_root`, in which what the instance needs has been tried.
        stage: of the instance.
        item: its choices.
        selected: `params/study.yaml`.

    Returns:
        `seconds`, `cold` (of the first of its kind, which compiles), `startup`, `bytes`.

    Raises:
        StudyError: the stage failed; its last line is told.
    """
    _lend(root, stage, item)
    there, classes = images_of(Cell(**item))
    tried = {split: min(count, TRIED_IMAGES) for split, count in there.items()}
    total, most = _amount(stage, item, there, tried)
    task = {
        "stage": stage,
        "choices": item,
        "began": time.time(),
        "total": total,
        "least": _LEAST.get(stage, 0),
        "most": most,
        "there": there,
        "few": True,
    }
    if stage == "prepare_data":
        task["least"] = max(task["least"], classes)
    if stage == "reference_statistics":
        needed = _needed(item, selected)
        task["few"] = needed > min(tried.values())
        task["least"] = max(_LEAST[stage], 0 if task["few"] else needed)
    environment = os.environ | {
        "STUDY_ROOT": str(root),
        "STUDY_COMMIT": "estimate",
        "TORCHINDUCTOR_CACHE_DIR": str(paths.ROOT / "work" / "compiled"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "study.probe", json.dumps(task)],
        cwd=paths.ROOT,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        raise StudyError(f"estimate of {stage}@{Cell(**item).instance}: {lines[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _lend(root: Path, stage: str, item: dict[str, Any]) -> None:
    """Give an instance what its own upstream would have made, from another of the same kind."""
    cell = Cell(**item)
    wanted = {
        "evaluate_autoencoder": [("finetune_autoencoder", ("data", "autoencoder", "arm", "seed"))],
        "cache_latents": [("finetune_autoencoder", ("data", "autoencoder", "arm", "seed"))],
        "train_generator": [("cache_latents", ("data", "autoencoder", "arm", "seed"))],
        "evaluate_generator": [
            ("finetune_autoencoder", ("data", "autoencoder", "arm", "seed")),
            ("train_generator", ("data", "autoencoder", "arm", "seed", "generator", "scaling")),
        ],
    }.get(stage, [])
    for upstream, names in wanted:
        folder = root / "outputs" / cell.profile / upstream / cell.only(*names).instance
        if not folder.exists():
            part = f"-{cell.autoencoder}-"
            suffix = f"-{cell.generator}-" if upstream == "train_generator" else ""
            others = [
                other
                for other in folder.parent.iterdir()
                if part in other.name and suffix in other.name
            ]
            folder.symlink_to(others[0])


def _amount(
    stage: str, item: dict[str, Any], there: dict[str, int], tried: dict[str, int]
) -> tuple[int, int]:
    """Images of a whole instance, and how many there are to try with."""
    profile = load_grid(paths.PARAMS / "profile" / f"{item['profile']}.yaml")
    match stage:
        case "prepare_data":
            return sum(there.values()), TRIED_IMAGES
        case "evaluate_autoencoder":
            count = profile[stage]["num_images"]
            return count, min(count, tried["validation"])
        case "evaluate_generator":
            count = profile[stage]["num_samples"]
            return count, min(count, tried["train"])
        case _:
            return there["train"], tried["train"]


def images_of(cell: Cell) -> tuple[dict[str, int], int]:
    """Images of both splits that the profile keeps, and their classes."""
    data = load_group(DataConfig, "data", str(cell.data))
    profile = load_grid(paths.PARAMS / "profile" / f"{cell.profile}.yaml")
    section = convert(PrepareDataConfig, profile["prepare_data"], "prepare_data.")
    counts, classes = {}, 0
    for split in ("train", "validation"):
        images = open_source(data, section, split)
        counts[split] = count_to_keep(images, section, split)
        classes = max(classes, len(images.class_names))
    return counts, classes


def _needed(item: dict[str, Any], selected: dict[str, Any]) -> int:
    """Images without which the reference is refused."""
    evaluation = load_group(EvaluationConfig, "evaluation", item["evaluation"])
    if evaluation.allow_few_samples:
        return 0
    if evaluation.extractor is Extractor.inception:
        return 2 * 2048
    networks = {entry["network"] for entry in selected["train_network"].values()}
    return 2 * max(load_group(NetworkConfig, "network", name).features for name in networks)
