"""The facts about a latent cache that its readers need."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.config.generator import Scaling

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True, slots=True)
class LatentSpec:
    """What a cache holds; everything a generator needs to know about its latents."""

    kind: str
    """gaussian, deterministic or tokens."""
    family: str
    channels: int
    side: int
    """Latent side h = w."""
    factor: int
    num_classes: int
    published_scale: float
    mean: list[float]
    """Per channel, of sampled latents, over images, flips and positions; empty for tokens."""
    std: list[float]
    token_counts: list[int]
    """How often each of the K tokens occurs, over images and flips; empty for latents."""

    @property
    def codebook_size(self) -> int:
        """K for tokens, else 0."""
        return len(self.token_counts)

    @property
    def discrete(self) -> bool:
        """Whether the cache holds tokens."""
        return self.kind == "tokens"

    def affine(self, scaling: Scaling) -> tuple["Tensor", "Tensor"]:
        """Offset and divisor (1 C 1 1) that turn latents into what a generator sees.

        `standardised`: per-channel mean and std of the cache. `fixed`: none, and one over the
        factor published with the pretrained model.
        """
        import torch

        if scaling is Scaling.fixed:
            offset, divisor = [0.0] * self.channels, [1 / self.published_scale] * self.channels
        else:
            offset, divisor = self.mean, self.std
        return torch.tensor(offset).view(1, -1, 1, 1), torch.tensor(divisor).view(1, -1, 1, 1)
