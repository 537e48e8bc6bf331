"""Where things live, relative to the repository root. Holds no logic beyond joining names."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from study.config import Cell

ROOT = Path(os.environ.get("STUDY_ROOT", Path(__file__).resolve().parents[1]))
PARAMS = ROOT / "params"
GRID = PARAMS / "study.yaml"
TRACKING_DATABASE = ROOT / "mlflow.db"
TRACKING_ARTIFACTS = ROOT / "mlartifacts"
PRETRAINING_SEED = 0
"""Of every autoencoder trained from scratch; as with published weights, seeds begin after it."""


def outputs(profile: str, stage: str, instance: str) -> Path:
    """Folder of a stage instance's large outputs (cached by DVC, ignored by git)."""
    return ROOT / "outputs" / profile / stage / instance


def work(stage: str, instance: str) -> Path:
    """Folder of an instance's unfinished state (ignored by git and DVC)."""
    return ROOT / "work" / stage / instance


def lock(stage: str, instance: str) -> Path:
    """File that the process which runs the instance holds a lock on, and names itself in."""
    return ROOT / "work" / "locks" / f"{stage}@{instance}"


def report(profile: str) -> Path:
    """Folder of a profile's report."""
    return ROOT / "reports" / profile


def metrics(profile: str, stage: str, instance: str, suffix: str = ".json") -> Path:
    """File of a stage instance's small outputs: metrics (.json), curve (.csv) or picture (.png)."""
    return report(profile) / "metrics" / stage / f"{instance}{suffix}"


def store(cell: "Cell") -> Path:
    """Pixel store of the cell's data."""
    return outputs(cell.profile, "prepare_data", cell.only("data").instance)


def network(cell: "Cell", role: str) -> Path:
    """In-domain network of a role; small, and kept beside the report, as the study's ruler."""
    return report(cell.profile) / "networks" / f"{cell.only('data').instance}-{role}"


def reference(cell: "Cell") -> Path:
    """Feature statistics of real images; kept beside the report."""
    return report(cell.profile) / "reference" / f"{cell.only('data').instance}.npz"


def gallery(cell: "Cell") -> Path:
    """Features and thumbnails of every training image."""
    return outputs(cell.profile, "reference_statistics", cell.only("data").instance)


def pretrained(cell: "Cell") -> Path:
    """Autoencoder made by `pretrain_autoencoder`: once, for all seeds of what is trained on it."""
    instance = f"{cell.only('data', 'autoencoder').instance}-{PRETRAINING_SEED}"
    return outputs(cell.profile, "pretrain_autoencoder", instance)


def autoencoder(cell: "Cell") -> Path:
    """Autoencoder of the cell's arm."""
    instance = cell.only("data", "autoencoder", "arm", "seed").instance
    return outputs(cell.profile, "finetune_autoencoder", instance)


def latents(cell: "Cell") -> Path:
    """Latent cache of the cell's arm."""
    instance = cell.only("data", "autoencoder", "arm", "seed").instance
    return outputs(cell.profile, "cache_latents", instance)


def generator(cell: "Cell") -> Path:
    """Checkpoints of the cell's generator."""
    return outputs(cell.profile, "train_generator", cell.instance)


def shown(path: Path) -> str:
    """The path as a user would type it: relative to the repository root where possible."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
