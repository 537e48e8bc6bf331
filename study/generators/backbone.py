"""The transformer of DiT, SiT and REPA: adaLN-Zero blocks [DiT, 2212.09748, Sec. 3].

Parameters carry the names of the published DiT weights. It sees latents, time and a class, whose
last index is the null class.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import BackboneConfig

FREQUENCIES = 256
"""Width of the sinusoidal time embedding."""


class TimeEmbedder(nn.Module):
    """Sinusoids of t, then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.spacing = FREQUENCIES // 2
        """Steps from rate 1 to rate 1/10000; diffusers has one less than DiT."""

    def forward(self, t: Tensor) -> Tensor:
        """Embedding B D of times B, in whatever unit the objective uses."""
        half = FREQUENCIES // 2
        steps = torch.arange(half, device=t.device)
        rates = torch.exp(-math.log(10000) * steps / self.spacing)
        angles = t.float()[:, None] * rates
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1))


class LabelEmbedder(nn.Module):
    """A table of classes; the last row is the null class."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        """Embedding B D of labels B."""
        return self.embedding_table(labels)


class PatchEmbedder(nn.Module):
    """Latents to tokens by a strided convolution."""

    def __init__(self, patch_size: int, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, patch_size)

    def forward(self, latents: Tensor) -> Tensor:
        """B c h w to B N D."""
        # Contiguous: every block would inherit the layout, whose norms are several times slower.
        return self.proj(latents).flatten(2).transpose(1, 2).contiguous()


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """B N D to B N D."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """Two layers with tanh-approximated GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """B N D to B N D."""
        weight, bias = self.fc1.weight, self.fc1.bias
        if x.is_cuda and weight.dtype is torch.bfloat16 and not torch.is_grad_enabled():
            # Frozen, for sampling: the product's own epilogue, one pass through memory less.
            flat = x.flatten(0, 1).to(weight.dtype)
            hidden = torch.ops.aten._addmm_activation(bias, flat, weight.t(), use_gelu=True)
            return self.fc2(hidden.view(*x.shape[:2], -1))
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Transformer block whose norms and gates are regressed from the condition (adaLN-Zero)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, config.heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, int(width * config.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens B N D and condition B D to tokens B N D."""
        parts = self.adaLN_modulation(condition)[:, None].chunk(6, dim=2)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
        x = x + gate_a * self.attn(self.norm1(x) * (1 + scale_a) + shift_a)
        return x + gate_m * self.mlp(self.norm2(x) * (1 + scale_m) + shift_m)


class FinalLayer(nn.Module):
    """Modulated norm and a linear head."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens B N D and condition B D to outputs B N O."""
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=2)
        return self.linear(self.norm_final(x) * (1 + scale) + shift)


class Transformer(nn.Module):
    """Latents, time and class to latent-shaped outputs (DiT, SiT, REPA)."""

    def __init__(
        self, config: BackboneConfig, channels: int, out_channels: int, side: int, num_classes: int
    ) -> None:
        super().__init__()
        if side % config.patch_size:
            raise ValueError(f"patch_size = {config.patch_size}: must divide latent side {side}")
        self.patch_size, self.out_channels = config.patch_size, out_channels
        self.grid = side // config.patch_size
        self.x_embedder = PatchEmbedder(config.patch_size, channels, config.width)
        self.t_embedder = TimeEmbedder(config.width)
        self.y_embedder = LabelEmbedder(num_classes, config.width)
        self.register_buffer("pos_embed", position_embedding(config.width, self.grid)[None])
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.width, config.patch_size**2 * out_channels)
        initialise(self)

    def forward(self, latents: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """B c h w, B, B to B out_channels h w."""
        return self.with_hidden(latents, t, labels, 0)[0]

    def with_hidden(
        self, latents: Tensor, t: Tensor, labels: Tensor, depth: int
    ) -> tuple[Tensor, Tensor]:
        """Outputs, and tokens B N D after block `depth` (1-based; 0: the embedded input)."""
        x = self.x_embedder(latents) + self.pos_embed  # B N D
        condition = self.t_embedder(t) + self.y_embedder(labels)  # B D
        hidden = x
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, condition)
            hidden = x if number == depth else hidden
        return self._unpatchify(self.final_layer(x, condition).to(latents.dtype)), hidden

    def _unpatchify(self, x: Tensor) -> Tensor:
        batch, p, g = len(x), self.patch_size, self.grid
        x = x.view(batch, g, g, p, p, self.out_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, self.out_channels, g * p, g * p)


def initialise(network: nn.Module) -> None:
    """Xavier for linear layers, N(0, 0.02) for embeddings, zero for gates and head, as DiT."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, PatchEmbedder):
            nn.init.xavier_uniform_(module.proj.weight.flatten(1))
            nn.init.zeros_(module.proj.bias)  # pyright: ignore[reportArgumentType]
        elif isinstance(module, TimeEmbedder):
            for layer in module.mlp:
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.02)
    for module in network.modules():
        if isinstance(module, Block | FinalLayer):
            for parameter in module.adaLN_modulation.parameters():
                nn.init.zeros_(parameter)
        if isinstance(module, FinalLayer):
            nn.init.zeros_(module.linear.weight)


def position_embedding(width: int, side: int) -> Tensor:
    """Fixed 2-D sinusoids, N D: first half for columns, second for rows, sines before cosines."""
    rates = 1.0 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    places = torch.arange(side, dtype=torch.float64)[:, None] * rates
    table = torch.cat([places.sin(), places.cos()], dim=1)  # side D/2
    columns = table[None].expand(side, -1, -1)
    rows = table[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1).float()
