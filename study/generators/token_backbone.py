"""The transformer of MaskGIT, in the layout of Halton-MaskGIT [2503.17076; sizes base and large].

What differs from `backbone`: RMS norms, normalised queries and keys, gated MLPs, no biases but in
the modulation, learned positions, one register token, output weights tied to the embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import BackboneConfig
from study.distributed import mine, whole
from study.generators.backbone import LabelEmbedder

EPSILON = 1e-5
MULTIPLE = 256
"""The hidden width of an MLP is the next multiple of this."""


class TokenAttention(nn.Module):
    """Multi-head self-attention; queries and keys are normalised over the whole width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """B N D to B N D."""
        width = x.shape[-1]
        q, k, v = self.qkv(x).chunk(3, dim=2)
        q, k = (functional.rms_norm(part, (width,), eps=EPSILON) for part in (q, k))
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        x = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class GatedMlp(nn.Module):
    """Two layers with SwiGLU; two thirds of the usual hidden width, for its third matrix."""

    def __init__(self, width: int, mlp_ratio: float) -> None:
        super().__init__()
        self.hidden = -(-int(2 * width * mlp_ratio / 3) // MULTIPLE) * MULTIPLE
        self.fc1 = nn.Linear(width, 2 * self.hidden, bias=False)
        self.fc2 = nn.Linear(self.hidden, width, bias=False)

    def forward(self, x: Tensor, dropout: float, bits: Tensor | None) -> Tensor:
        """B N D to B N D."""
        gate, value = self.fc1(x).chunk(2, dim=2)
        return self.fc2(drop(functional.silu(gate) * value, dropout, bits))


class TokenBlock(nn.Module):
    """Transformer block whose norms and gates are regressed from the class (adaLN-Zero)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.RMSNorm(width, eps=EPSILON)
        self.attn = TokenAttention(width, config.heads)
        self.norm2 = nn.RMSNorm(width, eps=EPSILON)
        self.mlp = GatedMlp(width, config.mlp_ratio)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def draw(self, x: Tensor, numbers: torch.Generator | None) -> tuple[Tensor | None, ...]:
        """Bits of both dropouts on tokens B N D; outside of what is compiled."""
        sizes = (x.numel(), x.numel() // x.shape[-1] * self.mlp.hidden)
        return tuple(random_bits(size, numbers) for size in sizes)

    def forward(
        self, x: Tensor, condition: Tensor, dropout: float, bits: tuple[Tensor | None, ...]
    ) -> Tensor:
        """Tokens B N D and condition B D to tokens B N D."""
        parts = self.adaLN_modulation(condition)[:, None].chunk(6, dim=2)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
        attended = self.attn(self.norm1(x) * (1 + scale_a) + shift_a)
        x = x + gate_a * drop(attended, dropout, bits[0])
        return x + gate_m * self.mlp(self.norm2(x) * (1 + scale_m) + shift_m, dropout, bits[1])


class TokenTransformer(nn.Module):
    """Tokens (K is the mask) and class to logits over K tokens."""

    def __init__(
        self,
        config: BackboneConfig,
        codebook_size: int,
        side: int,
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if config.patch_size != 1:
            raise ValueError(f"patch_size = {config.patch_size}: must be 1 for tokens")
        width = config.width
        self.mask_token, self.dropout = codebook_size, dropout
        self.token_embedder = nn.Embedding(codebook_size + 1, width)
        self.position_embedder = nn.Embedding(side**2, width)
        self.register_embedder = nn.Embedding(1, width)
        self.y_embedder = LabelEmbedder(num_classes, width)
        self.blocks = nn.ModuleList(TokenBlock(config) for _ in range(config.depth))
        self.norm_final = nn.RMSNorm(width, eps=EPSILON)
        self.norm_bias = nn.Parameter(torch.zeros(width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.output_bias = nn.Parameter(torch.zeros(codebook_size + 1))
        initialise(self)

    def forward(
        self, tokens: Tensor, labels: Tensor, numbers: torch.Generator | None = None
    ) -> Tensor:
        """Logits B N K.

        Args:
            tokens: B N.
            labels: B.
            numbers: of dropout; None: no dropout.
        """
        x = self.token_embedder(tokens) + self.position_embedder.weight  # B N D
        register = self.register_embedder.weight.expand(len(x), 1, -1)
        x = torch.cat([x, register], dim=1)  # B N+1 D
        condition = self.y_embedder(labels)  # B D
        numbers = numbers if self.dropout else None
        for block in self.blocks:
            assert isinstance(block, TokenBlock)
            x = block(x, condition, self.dropout, block.draw(x, numbers))
        x = self.norm_final(x[:, :-1]) + self.norm_bias  # B N D
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=2)
        # The mask is no answer; without it the product has a width that suits the hardware.
        known = slice(self.mask_token)
        weight, bias = self.token_embedder.weight[known], self.output_bias[known]
        return functional.linear(x * (1 + scale) + shift, weight, bias)


def random_bits(count: int, numbers: torch.Generator | None) -> Tensor | None:
    """16 random bits for each of `count` activations; None without random numbers.

    One draw of 64 bits serves four: drawing is most of the time of a dropout on a CPU.
    """
    if numbers is None:
        return None
    draws = torch.empty(-(-whole(count) // 4), dtype=torch.int64, device=numbers.device)
    bits = draws.random_(-(2**63), None, generator=numbers).view(torch.int16)
    return mine(bits[: whole(count)])


def drop(x: Tensor, share: float, bits: Tensor | None) -> Tensor:
    """Dropout with its own random numbers, so that a step does not depend on the global state."""
    if bits is None:
        return x
    kept = bits.view(x.shape) >= round(share * 2**16) - 2**15
    return x * (kept / (1 - share)).to(x.dtype)


def initialise(network: TokenTransformer) -> None:
    """Xavier for matrices, N(0, 0.02) for embeddings, zero for gates and biases."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    for module in network.modules():
        if isinstance(module, TokenBlock):
            # Stored as one, started as the separate matrices they are.
            for matrix in (*module.attn.qkv.weight.chunk(3), *module.mlp.fc1.weight.chunk(2)):
                nn.init.xavier_uniform_(matrix)
            for parameter in module.adaLN_modulation.parameters():
                nn.init.zeros_(parameter)
