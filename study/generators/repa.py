"""REPA: SiT whose hidden tokens are aligned with a frozen visual encoder [2410.06940]."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import BackboneConfig, LatentSpec, REPAConfig
from study.evaluation.networks.in_domain import InDomainNetwork
from study.generators.backbone import Transformer
from study.generators.common import Batch
from study.generators.sit import SiT


class AlignedTransformer(Transformer):
    """The shared transformer with a projection MLP on the tokens of one block."""

    def __init__(
        self, backbone: BackboneConfig, spec: LatentSpec, config: REPAConfig, features: int
    ) -> None:
        super().__init__(backbone, spec.channels, spec.channels, spec.side, spec.num_classes)
        if config.projection_depth > backbone.depth:
            rule = f"at most the backbone's depth {backbone.depth}"
            raise ValueError(f"projection_depth = {config.projection_depth}: must be {rule}")
        self.depth = config.projection_depth
        self.projector = nn.Sequential(
            nn.Linear(backbone.width, config.projection_width),
            nn.SiLU(),
            nn.Linear(config.projection_width, config.projection_width),
            nn.SiLU(),
            nn.Linear(config.projection_width, features),
        )

    def with_projections(self, x: Tensor, t: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity B c h w and projections B N D."""
        output, hidden = self.with_hidden(x, t, labels, self.depth)
        return output, self.projector(hidden)


class REPA(SiT):
    """SiT plus the alignment term; samples as SiT does."""

    needs_images = True

    def __init__(self, config: REPAConfig, target: InDomainNetwork | None) -> None:
        super().__init__(config)
        self.alignment = config
        self.target = target
        self.weights = {"velocity": 1.0, "projection": config.projection_weight}
        self.features = 0 if target is None else target.embed.out_channels

    def build(self, backbone: BackboneConfig, spec: LatentSpec) -> nn.Module:
        """The aligned transformer."""
        return AlignedTransformer(backbone, spec, self.alignment, self.features)

    def terms(
        self, network: nn.Module, batch: Batch, numbers: torch.Generator
    ) -> dict[str, Tensor]:
        """Velocity error and negative cosine similarity of tokens [REPA, Eq. 8]."""
        if not isinstance(network, AlignedTransformer) or batch.images is None:
            raise ValueError("REPA: needs an aligned transformer and images in the batch")
        x_t, t, velocity = self.noised(batch, numbers)
        output, projections = network.with_projections(x_t, t, batch.labels)
        similarity = functional.cosine_similarity(
            projections, self.target_tokens(batch.images, network.grid), dim=2
        )
        return {
            "velocity": (output - velocity).square().mean(),
            "projection": -similarity.mean(),
        }

    @torch.no_grad()
    def target_tokens(self, images: Tensor, grid: int) -> Tensor:
        """Frozen features on the token grid, B N D (average-pooled or interpolated to it)."""
        if self.target is None:
            raise ValueError("REPA: no target network was given; needed for training")
        maps = self.target.grid(images)
        if maps.shape[-1] > grid:
            maps = functional.adaptive_avg_pool2d(maps, grid)
        elif maps.shape[-1] < grid:
            maps = functional.interpolate(maps, (grid, grid), mode="bilinear")
        return maps.flatten(2).transpose(1, 2)
