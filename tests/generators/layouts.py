"""Networks in published layouts, with weights drawn anew."""

from pathlib import Path

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from study.config import BackboneConfig
from study.generators.backbone import Transformer

Tensors = dict[str, Tensor]


def redraw(network: nn.Module) -> nn.Module:
    """Every weight from N(0, 0.02), modulation and final layer included; positions stay."""
    torch.manual_seed(4)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    return network.eval().requires_grad_(False)


def library(
    side: int, classes: int, config: BackboneConfig, norm_eps: float
) -> DiTTransformer2DModel:
    """diffusers' DiT of a size, drawn anew; its embedders are equal in all blocks."""
    network = DiTTransformer2DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        in_channels=4,
        out_channels=8,
        num_layers=config.depth,
        sample_size=side,
        patch_size=config.patch_size,
        num_embeds_ada_norm=classes,
        norm_eps=norm_eps,
    )
    redraw(network)
    first, *others = (block.get_submodule("norm1.emb") for block in network.transformer_blocks)
    for embedder in others:
        embedder.load_state_dict(first.state_dict())
    return network


def dit(config: BackboneConfig, side: int = 8, classes: int = 4) -> Transformer:
    return Transformer(config, 4, 8, side, classes)


def written(folder: Path, weights: Tensors) -> Path:
    file = folder / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, file)
    return file
