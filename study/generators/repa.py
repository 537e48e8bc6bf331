"""REPA: SiT whose hidden tokens are aligned with a frozen visual encoder [2410.06940]."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import BackboneConfig, LatentSpec, REPAConfig
from study.generators.backbone import Transformer
from study.generators.common import Batch
from study.generators.sit import SiT
from study.generators.targets import Target


class AlignedTransformer(Transformer):
    """The shared transformer with a projection MLP on the tokens of one block."""

    def __init__(self, backbone: BackboneConfig, spec: LatentSpec, features: int) -> None:
        super().__init__(backbone, spec.channels, spec.channels, spec.side, spec.num_classes)
        self.depth, hidden = backbone.projection_depth, backbone.projection_width
        self.projector = nn.Sequential(
            nn.Linear(backbone.width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, features),
        )

    def with_projections(self, x: Tensor, t: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity B c h w and projections B N D."""
        output, hidden = self.with_hidden(x, t, labels, self.depth)
        return output, self.projector(hidden)


class REPA(SiT):
    """SiT plus the alignment term; samples as SiT does."""

    needs_images = True

    def __init__(self, config: REPAConfig, target: Target | None) -> None:
        super().__init__(config)
        self.target = target
        self.weights = {"velocity": 1.0, "projection": config.projection_weight}
        self.features = 0 if target is None else target.channels
        self.target_name = "" if target is None else target.name

    def build(self, backbone: BackboneConfig, spec: LatentSpec) -> nn.Module:
        """The aligned transformer."""
        return AlignedTransformer(backbone, spec, self.features)

    def terms(
        self, network: nn.Module, batch: Batch, numbers: torch.Generator
    ) -> dict[str, Tensor]:
        """Velocity error and negative cosine similarity of tokens [REPA, Eq. 8]."""
        if not isinstance(network, AlignedTransformer) or batch.images is None:
            raise ValueError("REPA: needs an aligned transformer and images in the batch")
        if self.target is None:
            raise ValueError("REPA: no target network was given; needed for training")
        features = self.target.tokens(batch.images, network.grid)  # B N D
        x_t, t, velocity = self.noised(batch, numbers)
        output, projections = network.with_projections(x_t, t, batch.labels)
        similarity = functional.cosine_similarity(projections, features, dim=2)  # B N
        return {
            "velocity": (output - velocity).square().mean(),
            "projection": -similarity.mean(),
        }
