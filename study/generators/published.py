"""Published weights of DiT, SiT and REPA in this study's networks: every tensor used, none missing.

Whatever a layout does differently (names, time that runs from noise to data, outputs that are never
used) is converted here, once; afterwards a network is like any other.
"""

import json
import pickle
from argparse import Namespace
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from study.config import ConfigError
from study.generators.backbone import FREQUENCIES, Block, Transformer

Tensors = dict[str, Tensor]


class Layout(Enum):
    """Where weights come from."""

    dit = "dit"
    """facebookresearch/DiT: the names of `Transformer`; t in 0..999."""
    sit = "sit"
    """willisma/SiT: as DiT; t in [0, 1] with data at 1; half of the outputs are never used."""
    repa = "repa"
    """sihyun-yu/REPA: as DiT, with a projector; t in [0, 1] with data at 0, as here."""
    diffusers = "diffusers"
    """DiTTransformer2DModel: other names, an embedder in every block, sinusoids that end at another
    rate than DiT's (which are taken over); t in 0..999."""


def load_published(network: Transformer, path: Path, layout: Layout) -> None:
    """Fill a network with published weights.

    Args:
        network: of the weights' size, channels, side and classes; DiT has twice as many output
            channels as input channels, SiT and REPA as many.
        path: a safetensors or PyTorch file; for `diffusers` also a folder with config.json, whose
            `norm_eps` is taken over (1e-6, as in DiT, where there is none).
        layout: of the file.

    Raises:
        ConfigError: no such file, not readable, or a tensor too many, missing, of another shape or
            not finite; one line that names it.
    """
    file, epsilon = path, 1e-6
    if layout is Layout.diffusers and path.is_dir():
        file, epsilon = path / "diffusion_pytorch_model.safetensors", _norm_epsilon(path)
    weights = read_weights(file)
    try:
        converted = _CONVERSIONS[layout](weights, network)
    except KeyError as error:
        raise ConfigError(f"{file}: missing tensors: {error.args[0]}") from None
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{file}: not the layout of {layout.value}: {text}") from None
    _require_equal(file, converted, network.state_dict())
    network.load_state_dict(converted)
    if layout is Layout.diffusers:
        network.t_embedder.spacing = FREQUENCIES // 2 - 1
        for block in network.blocks:
            assert isinstance(block, Block)
            block.norm2.eps = epsilon


def read_weights(file: Path) -> Tensors:
    """Tensors of a safetensors or PyTorch file by name, in fp32; never runs code in it.

    Of a training checkpoint, entry `ema`, which is what the released samplers use. Beside it stand
    the run's options, an argparse.Namespace, the one object that is read: names and plain values.

    Raises:
        ConfigError: no such file, or it holds anything but tensors.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; put the weights there")
    try:
        if file.suffix == ".safetensors":
            found = load_file(file)
        else:
            with torch.serialization.safe_globals([Namespace]):
                found = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        text = " ".join(str(error).split())[:120]
        raise ConfigError(f"{file}: not readable as weights: {text}") from None
    if isinstance(found, dict) and isinstance(found.get("ema"), dict):
        found = found["ema"]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ConfigError(f"{file}: must be a mapping of names to tensors")
    return {str(name): value.float() for name, value in found.items()}


def _from_dit(weights: Tensors, network: Transformer) -> Tensors:
    return dict(weights)


def _from_sit(weights: Tensors, network: Transformer) -> Tensors:
    """Make ours(x, t) = -theirs(x, 1 - t), by the weights alone.

    The sign goes into the head. The time goes into the layer that sees cos(r t) and sin(r t), by
    the angle difference identities for cos(r - r t) and sin(r - r t).
    """
    converted = dict(weights)
    for kind in ("weight", "bias"):
        name = f"final_layer.linear.{kind}"
        outputs = weights[name].unflatten(0, (network.patch_size**2, 2 * network.out_channels))
        converted[name] = -outputs[:, : network.out_channels].flatten(0, 1)
    steps = torch.arange(FREQUENCIES // 2, dtype=torch.float64)
    rates = 10000.0 ** (-steps / network.t_embedder.spacing)
    cosine, sine = weights["t_embedder.mlp.0.weight"].double().chunk(2, dim=1)
    forward = cosine * rates.cos() + sine * rates.sin()
    backward = cosine * rates.sin() - sine * rates.cos()
    converted["t_embedder.mlp.0.weight"] = torch.cat([forward, backward], dim=1).float()
    return converted


def _from_repa(weights: Tensors, network: Transformer) -> Tensors:
    return {name.replace("projectors.0.", "projector."): tensor for name, tensor in weights.items()}


def _from_diffusers(weights: Tensors, network: Transformer) -> Tensors:
    """Rename, join queries, keys and values, and take the embedders, equal in all blocks, once."""
    rest = dict(weights)
    shared = {
        "t_embedder.mlp.0": "timestep_embedder.linear_1",
        "t_embedder.mlp.2": "timestep_embedder.linear_2",
        "y_embedder.embedding_table": "class_embedder.embedding_table",
    }
    parts = {
        "attn.proj": "attn1.to_out.0",
        "mlp.fc1": "ff.net.0.proj",
        "mlp.fc2": "ff.net.2",
        "adaLN_modulation.1": "norm1.linear",
    }
    outer = {
        "x_embedder.proj": "pos_embed.proj",
        "final_layer.adaLN_modulation.1": "proj_out_1",
        "final_layer.linear": "proj_out_2",
    }
    converted = {"pos_embed": network.state_dict()["pos_embed"]}
    for kind in ("weight", "bias"):
        for ours, theirs in outer.items():
            converted[f"{ours}.{kind}"] = rest.pop(f"{theirs}.{kind}")
        for number in range(len(network.blocks)):
            block, there = f"blocks.{number}", f"transformer_blocks.{number}"
            for ours, theirs in parts.items():
                converted[f"{block}.{ours}.{kind}"] = rest.pop(f"{there}.{theirs}.{kind}")
            joined = [rest.pop(f"{there}.attn1.to_{part}.{kind}") for part in "qkv"]
            converted[f"{block}.attn.qkv.{kind}"] = torch.cat(joined)
            for ours, theirs in shared.items():
                name = f"{there}.norm1.emb.{theirs}.{kind}"
                if ours == "y_embedder.embedding_table" and kind == "bias":
                    continue
                found = rest.pop(name)
                if not torch.equal(converted.setdefault(f"{ours}.{kind}", found), found):
                    raise RuntimeError(f"{name}: differs from that of block 0")
    return converted | rest


_CONVERSIONS: dict[Layout, Callable[[Tensors, Transformer], Tensors]] = {
    Layout.dit: _from_dit,
    Layout.sit: _from_sit,
    Layout.repa: _from_repa,
    Layout.diffusers: _from_diffusers,
}


def _norm_epsilon(folder: Path) -> float:
    file = folder / "config.json"
    if not file.is_file():
        raise ConfigError(f"{file}: missing; must be a diffusers folder")
    try:
        content = json.loads(file.read_text())
        name, epsilon = content["_class_name"], float(content["norm_eps"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: must hold _class_name and norm_eps: {error!r}") from None
    if name != "DiTTransformer2DModel":
        raise ConfigError(f"{file}: _class_name = {name!r}: must be 'DiTTransformer2DModel'")
    return epsilon


def _require_equal(file: Path, found: Tensors, needed: Tensors) -> None:
    unused, missing = sorted(set(found) - set(needed)), sorted(set(needed) - set(found))
    for text, names in (("tensors that nothing uses", unused), ("missing tensors", missing)):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            raise ConfigError(f"{file}: {text}: {shown}")
    for name, tensor in found.items():
        if tensor.shape != needed[name].shape:
            given, rule = list(tensor.shape), f"must be {list(needed[name].shape)}"
            raise ConfigError(f"{file}: {name}: shape = {given}: {rule}")
        if not tensor.isfinite().all():
            raise ConfigError(f"{file}: {name}: must be finite")
