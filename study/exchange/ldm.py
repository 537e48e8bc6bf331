"""Reads checkpoints of latent-diffusion's `AutoencoderKL` (CompVis), such as `eq-vae-ldm`."""

from itertools import count
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from study import paths
from study.autoencoders.models import Autoencoder, create_autoencoder
from study.config import AutoencoderConfig, ConfigError, Family

SCALE = 0.18215
"""Factor on latents in the configuration of Stable Diffusion 1, and of `AutoencoderKL`."""
_SAMPLE_SIZE = 256

_PREFIX = "first_stage_model."
"""Of the autoencoder's weights in the checkpoint of a whole latent diffusion model."""
_IGNORED = ("loss.", "model_ema.")
"""Discriminator and perceptual network; the running average of the weights."""


def load_ldm(file: Path) -> Autoencoder:
    """Read an LDM-format checkpoint in fp32: the trained weights, not their running average.

    The architecture is read from the weights' shapes: `AutoencoderKL` with attention in the middle
    or nowhere. Every weight must find its place, and every place its weight.

    Args:
        file: `.safetensors`, or what `torch.save` writes.

    Raises:
        FileNotFoundError: the file is not there.
        ConfigError: it holds other objects than tensors, or not exactly an autoencoder's weights.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    weights = _autoencoder_weights(file)
    config = AutoencoderConfig(
        family=Family.kl,
        weights=None,
        architecture=_architecture(file, weights),
        published_scale=SCALE,
    )
    autoencoder = create_autoencoder(config)
    expected = autoencoder.model.state_dict()
    converted = convert_ldm_vae_checkpoint(weights, autoencoder.model.config)
    # The converter drops names it does not know, or leaves them as they are; values keep their
    # memory.
    used = {value.data_ptr() for name, value in converted.items() if name in expected}
    for name, value in weights.items():
        if value.data_ptr() not in used:
            raise _error(file, f"unknown weight {name!r}")
    for name, value in expected.items():
        if name not in converted:
            raise _error(file, f"no weight for {name!r}")
        if converted[name].shape != value.shape:
            shapes = f"{tuple(converted[name].shape)}, not {tuple(value.shape)}"
            raise _error(file, f"weight for {name!r} has shape {shapes}")
    autoencoder.model.load_state_dict(converted)
    return autoencoder.eval()


def _autoencoder_weights(file: Path) -> dict[str, Tensor]:
    content = _read(file)
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise _error(file, "holds something else than tensors by name")
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in content) else ""
    weights = {
        name.removeprefix(prefix): value
        for name, value in content.items()
        if name.startswith(prefix)
    }
    return {name: value for name, value in weights.items() if not name.startswith(_IGNORED)}


def _read(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"{paths.shown(file)}: no such file")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError:
        # The text of this error asks to load the file without this check.
        raise _error(file, "holds pickled objects or is damaged") from None
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise _error(file, " ".join(str(error).split())[:200]) from None


def _architecture(file: Path, weights: dict[str, Tensor]) -> dict[str, Any]:
    block = "encoder.down.{}.block.{}.conv2.weight"
    levels = next(i for i in count() if block.format(i, 0) not in weights)
    try:
        return {
            "in_channels": weights["encoder.conv_in.weight"].shape[1],
            "out_channels": len(weights["decoder.conv_out.weight"]),
            "latent_channels": weights["decoder.conv_in.weight"].shape[1],
            "block_out_channels": [len(weights[block.format(i, 0)]) for i in range(levels or 1)],
            "layers_per_block": next(i for i in count() if block.format(0, i) not in weights),
            "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in weights,
            "sample_size": _SAMPLE_SIZE,
            "scaling_factor": SCALE,
        }
    except KeyError as error:
        raise _error(file, f"no weight {error}") from None


def _error(file: Path, text: str) -> ConfigError:
    rule = "must be an LDM AutoencoderKL checkpoint of tensors only"
    return ConfigError(f"{paths.shown(file)}: {text}; {rule}")
