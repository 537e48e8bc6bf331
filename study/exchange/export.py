"""Writes a fine-tuned autoencoder as a diffusers folder with a model card, to be published."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from study import paths
from study.autoencoders.models import Autoencoder, load_autoencoder
from study.autoencoders.weights import CLASSES, FILES
from study.config import ConfigError, Family, Trainable

Metrics = dict[str, Any]
"""Content of a metrics file."""

_TEMPLATE = Path(__file__).with_name("card.md.j2")
_PER_CHANNEL = re.compile(r"latent_(mean|std)_channel_(\d+)")


def export(source: Path, target: Path, finetuned: Metrics, evaluated: Metrics | None) -> None:
    """Copy an autoencoder to a new folder and describe it in `README.md`.

    Args:
        source: diffusers folder that `finetune_autoencoder` made.
        target: must not exist, or be empty.
        finetuned: metrics of `finetune_autoencoder`.
        evaluated: metrics of `evaluate_autoencoder`; None: the card says that there are none.

    Raises:
        FileNotFoundError: the source is not there.
        ConfigError: the target holds something, or the source no autoencoder.
    """
    require_vacant(target)
    card = model_card(load_autoencoder(source), target.resolve().name, finetuned, evaluated)
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(source / name, target / name)
    (target / "README.md").write_text(card)


def require_vacant(folder: Path) -> None:
    """Check that a folder can be written without overwriting anything.

    Raises:
        ConfigError: it holds something, or is a file.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{paths.shown(folder)}: exists; must be a new or an empty folder")


def model_card(
    autoencoder: Autoencoder, folder: str, finetuned: Metrics, evaluated: Metrics | None
) -> str:
    """Model card in Markdown with the hub's YAML header; `folder` is named in its example."""
    from jinja2 import Environment, StrictUndefined

    parameters = finetuned["parameters"]
    weights = parameters["autoencoder"]["weights"]
    engine = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return engine.from_string(_TEMPLATE.read_text()).render(
        instance=finetuned["instance"],
        cell=finetuned["cell"],
        commit=finetuned.get("environment", {}).get("commit", "unknown"),
        autoencoder=autoencoder,
        cls=CLASSES[autoencoder.family],
        latents="latent_dist.mean" if autoencoder.family is Family.kl else "latents",
        folder=folder,
        base=weights,
        base_model=weights if weights and not weights.startswith("weights/") else None,
        trained=parameters["arm"]["trainable"] != Trainable.nothing.value,
        arm=_shown(parameters["arm"]),
        training=_shown(parameters["finetune_autoencoder"]),
        published_scale=parameters["autoencoder"]["published_scale"],
        channels=_channels(evaluated),
        quality=_quality(evaluated),
        protocol=_shown(evaluated["protocol"]) if evaluated else {},
    )


def _shown(values: dict[str, Any]) -> dict[str, str]:
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}


def _quality(evaluated: Metrics | None) -> list[dict[str, Any]]:
    """Records of the autoencoder as a whole."""
    records = evaluated["records"] if evaluated else []
    return [record for record in records if not _PER_CHANNEL.fullmatch(record["metric"])]


def _channels(evaluated: Metrics | None) -> dict[int, dict[str, float]]:
    """Mean and std of the latents by channel."""
    channels: dict[int, dict[str, float]] = {}
    for record in evaluated["records"] if evaluated else []:
        if found := _PER_CHANNEL.fullmatch(record["metric"]):
            channels.setdefault(int(found[2]), {})[found[1]] = record["value"]
    return channels
