"""Folders of published weights: what they must hold, and their manifest. Does not need torch."""

import hashlib
import json
from typing import Any

from study import paths
from study.config import AutoencoderConfig, ConfigError, Family

CLASSES = {Family.kl: "AutoencoderKL", Family.tiny: "AutoencoderTiny", Family.vq: "VQModel"}
"""diffusers class of each family."""

FILES = ("config.json", "diffusion_pytorch_model.safetensors")


def check_weights(config: AutoencoderConfig) -> None:
    """Check that a local weights folder holds what is read from it; hub ids pass.

    Raises:
        ConfigError: no folder, no config.json, no weights, or another class.
    """
    if not local(config):
        return
    folder = paths.ROOT / str(config.weights)
    if not folder.is_dir():
        raise ConfigError(f"{config.weights}: no such folder; link the autoencoder's weights there")
    for name in FILES:
        if not (folder / name).is_file():
            raise ConfigError(f"{config.weights}/{name}: missing; must be a diffusers folder")
    try:
        found = json.loads((folder / FILES[0]).read_text()).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{config.weights}/config.json: not a JSON mapping: {error}") from None
    wanted = CLASSES[config.family]
    if found != wanted:
        rule = f"must be {wanted!r} for family {config.family.value}"
        raise ConfigError(f"{config.weights}/config.json: _class_name = {found!r}: {rule}")


def local(config: AutoencoderConfig) -> bool:
    """Whether the weights are a folder below `weights/`."""
    return config.weights is not None and config.weights.startswith("weights/")


def downsampling_factor(config: AutoencoderConfig) -> int | None:
    """Image side over latent side; None for a hub id, which is known only once it is loaded."""
    description = config.architecture
    if local(config):
        description = json.loads((paths.ROOT / str(config.weights) / FILES[0]).read_text())
    name = "encoder_block_out_channels" if config.family is Family.tiny else "block_out_channels"
    levels = description.get(name)
    return 2 ** (len(levels) - 1) if isinstance(levels, list) and levels else None


def digest_weights(config: AutoencoderConfig) -> dict[str, Any]:
    """Manifest of a local weights folder: name, size and sha256 of what is read."""
    folder = paths.ROOT / str(config.weights)
    files = []
    for name in FILES:
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        files.append({"name": name, "size": len(content), "sha256": digest})
    return {"path": config.weights, "files": files}
