"""A metrics tree as the stages write it, with made-up numbers."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from study import paths
from study.config import Cell
from study.grid import expand, read_profile
from study.report.fine_tuning import FOLLOWED
from study.report.results import collect, instances, where

ARMS = ("pretrained", "plain", "eq")
GENERATORS = {"dit": "small_kl", "sit": "small_kl", "repa": "small_kl", "maskgit": "small_vq"}
CHECKPOINTS = (100, 200, 400, 600)
TRANSFORMS = ("turn_90", "turn_180", "turn_270", "rotation", "scale_0.25", "scale_0.5", "scale")
PICTURES = {
    "prepare_data": ("",),
    "evaluate_autoencoder": ("", "-latents", "-transforms"),
    "evaluate_generator": ("",),
}
LAYOUTS = {
    ("evaluate_autoencoder", ""): (2, 8),
    ("evaluate_autoencoder", "-latents"): (4, 6),
    ("evaluate_autoencoder", "-transforms"): (2, 8),
}


_ERRORS = {
    **{"pretrained": 0.95, "plain": 0.9, "plain_low_resolution": 0.89, "plain_decoder": 0.95},
    **{"eq": 0.4, "eq_paper": 0.3, "eq_rotation": 0.5, "eq_scale": 0.55, "explicit": 0.35},
}
_PSNR = {
    **{"pretrained": 22.0, "plain": 24.3, "plain_low_resolution": 24.2, "plain_decoder": 23.3},
    **{"eq": 23.7, "eq_paper": 23.4, "eq_rotation": 23.2, "eq_scale": 23.5},
}


def grid(seeds: Sequence[int], profile: str = "laptop") -> dict[str, Any]:
    cells: dict[str, list[Cell]] = {
        "check_study": [Cell(profile=profile)],
        "prepare_data": [Cell(profile=profile, data="shapes")],
        "train_network": [
            Cell(profile=profile, data="shapes", role=role) for role in ("extractor", "target")
        ],
        "reference_statistics": [Cell(profile=profile, data="shapes", evaluation="in_domain")],
    }
    for seed in seeds:
        for autoencoder in ("small_kl", "small_vq"):
            for arm in ARMS:
                cell = _cell(profile, autoencoder, arm, seed)
                cells.setdefault("finetune_autoencoder", []).append(cell)
                cells.setdefault("evaluate_autoencoder", []).append(cell)
        for generator, autoencoder in GENERATORS.items():
            for arm in ARMS[1:]:
                trained = _cell(profile, autoencoder, arm, seed)
                cell = replace(trained, generator=generator, scaling="standardised")
                cells.setdefault("train_generator", []).append(cell)
                cells.setdefault("evaluate_generator", []).append(cell)
    cells["render_report"] = [Cell(profile=profile)]
    return {"profile": profile} | {
        stage: {cell.instance: _choices(cell) for cell in some} for stage, some in cells.items()
    }


def profile_grid(profile: str) -> dict[str, Any]:
    """The grid of one of the study's own profiles; its data and weights need not be there."""
    return expand(profile, read_profile(profile))


def write_tree(grid: dict[str, Any]) -> None:
    """Write the metrics of every instance below `paths.ROOT`."""
    cells: dict[str, list[tuple[str, Cell]]] = {}
    for stage, instance, cell in instances(grid):
        cells.setdefault(stage, []).append((instance, cell))
    for stage in RECORDS:
        for number, (instance, cell) in enumerate(cells.get(stage, [])):
            rng = np.random.default_rng([list(RECORDS).index(stage), number])
            write_instance(stage, instance, cell, RECORDS[stage](cell, rng))
            if stage in ("finetune_autoencoder", "train_generator"):
                _write_curve(paths.metrics(cell.profile, stage, instance, ".csv"), stage, cell, rng)
            for name in PICTURES.get(stage, ()):
                rows, columns = LAYOUTS.get((stage, name), (4, 4))
                noise = rng.integers(0, 256, (rows * 32, columns * 32, 3), dtype=np.uint8)
                path = paths.metrics(cell.profile, stage, instance, f"{name}.png")
                Image.fromarray(noise).save(path)
            if stage == "evaluate_autoencoder":
                _write_spectra(paths.metrics(cell.profile, stage, instance, "-spectra.csv"), cell)


def results(study: dict[str, Any]) -> pd.DataFrame:
    """Records of the tree below `paths.ROOT`."""
    return collect(study, paths.report(study["profile"]) / "metrics")


def values(records: pd.DataFrame, **choices: object) -> list[float]:
    """Values of the records with some choices, in their order."""
    for name, value in choices.items():
        records = where(records, name, value)
    return [float(value) for value in records["value"]]


def with_arms(
    study: dict[str, Any], found: pd.DataFrame, *names: str
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Grid and results with further arms of SiT, each a little worse than `plain`."""
    stages = ("evaluate_autoencoder", "evaluate_generator")
    study, frames = study | {stage: dict(study[stage]) for stage in stages}, [found]
    for place, name in enumerate(names, start=1):
        for stage in stages:
            for instance, cell in list(study[stage].items()):
                if cell["arm"] == "plain" and cell.get("generator", "sit") == "sit":
                    study[stage][instance.replace("plain", name)] = {**cell, "arm": name}
        own = where(where(found, "arm", "plain"), "stage", *stages)
        frames.append(own.assign(arm=name, value=own["value"] * (1 + 0.01 * place)))
    return study, pd.concat(frames)


def write_instance(stage: str, instance: str, cell: Cell, records: list[dict[str, Any]]) -> Path:
    content = {
        "stage": stage,
        "instance": instance,
        "cell": asdict(cell),
        "family": _family(cell),
        "parameters": {
            "cell": _choices(cell),
            stage: {"steps": 600, "batch_size": 64, "scales": [0.25, 0.5], "grid_images": 16},
        },
        "records": records,
        "protocol": _protocol(stage, cell),
        "cost": {"seconds": 12.5 + len(instance), **_work(stage, cell)},
        "environment": {
            "commit": "0123456789ab",
            "python": "3.11.9",
            "torch": "2.15.0",
            "gpu": None,
            "threads": 2,
            "finished": "2025-01-01T12:00:00+00:00",
        },
    }
    path = paths.metrics(cell.profile, stage, instance)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def record(metric: str, value: float, n: int | None = None) -> dict[str, Any]:
    empty = dict.fromkeys(("step", "images_seen", "low", "high", "extractor"))
    return {"metric": metric, "value": float(value), "n": n, **empty}


def _of_generator(cell: Cell, rng: np.random.Generator) -> list[dict[str, Any]]:
    worse = {"plain": 1.12, "eq": 1.0}.get(cell.arm or "", 1.2)
    # A schedule, as in sit_rate_200, does not change the level.
    name = (cell.generator or "").partition("_")[0]
    level = {"dit": 9.0, "sit": 7.0, "repa": 6.0, "maskgit": 12.0}[name]
    records = []
    for step in CHECKPOINTS:
        value = level * worse * (step / 100) ** -0.45 * float(np.exp(0.03 * rng.normal()))
        row = record("fd_in_domain", value, 1000)
        bound = {"low": 0.96 * value, "high": 1.04 * value, "extractor": "in_domain"}
        seen = {"step": step, "images_seen": 64 * step}
        records.append(row | seen | bound)
        records.append(record("kid_in_domain", value / 50, 1000) | seen)
        for name in ("precision", "recall", "density", "coverage"):
            records.append(record(f"{name}_in_domain", 1 / (1 + value), 1000) | seen)
    end = {"step": CHECKPOINTS[-1], "images_seen": 64 * CHECKPOINTS[-1]}
    records.append(record("nearest_ratio_pixels", 0.9, 100) | end)
    records.append(record("fd_in_domain_raw", 1.1 * level * worse, 1000) | end)
    start = record("fd_in_domain_random_latents", 1.9 * level * worse, 1000)
    return [*records, start]


def _of_autoencoder(cell: Cell, rng: np.random.Generator) -> list[dict[str, Any]]:
    error = _ERRORS.get(cell.arm or "", 0.6) + 0.01 * rng.normal()
    psnr = _PSNR.get(cell.arm or "", 24.0) + 0.1 * rng.normal()
    values = {
        "psnr_db": psnr,
        "ssim": psnr / 30,
        "perceptual_in_domain": 0.2 + 0.1 * error,
        "equivariance_error": error,
        "latent_std": 1.0 + 0.1 * rng.normal(),
        "latent_beyond_3": 0.01 * error,
        "latent_spectral_slope": -1.0 - error,
        "latent_high_frequency_share": 0.2 + 0.3 * error,
    }
    for place, name in enumerate(TRANSFORMS):
        factor = 1 + 0.05 * place
        values[f"equivariance_error_{name}"] = factor * error
        values[f"equivariance_error_paper_{name}"] = 1.05 * factor * error
        values[f"transformed_psnr_db_{name}"] = psnr - 5 * factor
        values[f"transformed_perceptual_in_domain_{name}"] = factor * (0.5 + error)
        if name.startswith("scale"):
            values[f"equivariance_error_{name}_antialiased"] = 0.9 * factor * error
            values[f"equivariance_error_paper_{name}_antialiased"] = 0.95 * factor * error
        if _family(cell) == "kl":
            values[f"equivariance_error_{name}_sampled"] = factor * error + 0.1
            values[f"equivariance_error_paper_{name}_sampled"] = factor * error + 0.2
    if _family(cell) == "vq":
        values["codebook_perplexity"] = 100 + error
    distances = {"rfd_in_domain": 0.3 + error}
    distances |= {f"transformed_rfd_in_domain_{name}": 2 + error for name in TRANSFORMS}
    return [
        *(record(name, value, 512) for name, value in values.items()),
        *(record(n, v, 512) | {"extractor": "in_domain"} for n, v in distances.items()),
        *(record(f"intrinsic_dimension_{n}", n**0.5 - error, n) for n in (128, 512)),
    ]


def _of_network(cell: Cell, rng: np.random.Generator) -> list[dict[str, Any]]:
    return [record("accuracy", 0.9 + 0.05 * rng.random(), 512)]


def _of_reference(cell: Cell, rng: np.random.Generator) -> list[dict[str, Any]]:
    made = {"extractor": "in_domain"}
    values = {"fd_in_domain_floor": 0.31, "precision_in_domain_floor": 0.9}
    for kind in ("blur", "noise", "jpeg", "classes"):
        values |= {f"ruler_{kind}_{grade}": 0.4 + grade for grade in range(4)}
    return [record(name, value, 1000) | made for name, value in values.items()]


def _of_fine_tuning(cell: Cell, rng: np.random.Generator) -> list[dict[str, Any]]:
    if cell.arm == "pretrained":
        return []
    reconstruction = 0.005 if cell.arm == "eq" else 0.02
    return [
        record("last_fifth_change_held_out_reconstruction", reconstruction, 64),
        record("last_fifth_change_equivariance_error", 0.01, 64),
    ]


def _of_nothing(cell: Cell, rng: np.random.Generator) -> list[dict[str, Any]]:
    return []


RECORDS = {
    "prepare_data": _of_nothing,
    "train_network": _of_network,
    "reference_statistics": _of_reference,
    "finetune_autoencoder": _of_fine_tuning,
    "evaluate_autoencoder": _of_autoencoder,
    "train_generator": _of_nothing,
    "evaluate_generator": _of_generator,
}


def _cell(profile: str, autoencoder: str, arm: str, seed: int) -> Cell:
    return Cell(profile=profile, data="shapes", autoencoder=autoencoder, arm=arm, seed=seed)


def _choices(cell: Cell) -> dict[str, Any]:
    return {key: value for key, value in asdict(cell).items() if value is not None}


def _family(cell: Cell) -> str | None:
    return cell.autoencoder.removeprefix("small_") if cell.autoencoder else None


def _protocol(stage: str, cell: Cell) -> dict[str, Any]:
    if stage == "prepare_data":
        return {"image_size": 32, "classes": 6}
    return {"extractor": "in_domain", "steps": 8 if cell.generator == "maskgit" else 50}


def _work(stage: str, cell: Cell) -> dict[str, float]:
    if stage == "train_generator":
        return {"images_per_second": 100.0, "gflop_per_image": 3.0}
    if stage != "finetune_autoencoder" or cell.arm == "pretrained":
        return {"images_per_second": 100.0}
    return {"training_seconds": 90.0, "gflop_per_image": 30.0 if cell.arm == "eq" else 40.0}


def _write_curve(path: Path, stage: str, cell: Cell, rng: np.random.Generator) -> None:
    name = "loss" if stage == "train_generator" else "pixel"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if cell.arm == "pretrained":
            writer.writerows([["step"], [0]])
            return
        followed = list(FOLLOWED)
        held_out = followed if stage == "finetune_autoencoder" else []
        writer.writerow(["step", name, "gradient_norm", *held_out])
        for step in range(6, 601, 6):
            level = (0.2 if cell.arm == "eq" else 0.25) + 0.8 * float(np.exp(-step / 120))
            measured = [level if step % 60 == 0 else ""] * len(held_out)
            writer.writerow([step, level + 0.02 * float(rng.normal()), 1.0, *measured])


def _write_spectra(path: Path, cell: Cell) -> None:
    slope = -2 + _ERRORS.get(cell.arm or "", 0.6)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["set", "frequency", "power"])
        for name, side, exponent in (("latents", 8, slope), ("images", 32, -2.5)):
            for ring in range(1, side // 2 + 1):
                writer.writerow([name, ring / side, 0.05 * (ring / side) ** exponent])
