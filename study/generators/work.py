"""How much work training a generator is, in operations, whatever machine does it."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from study.config import BackboneConfig, LatentSpec
from study.generators.common import GeneratorObjective
from study.generators.repa import REPA, AlignedTransformer


@torch.no_grad()
def training_gflop(
    objective: GeneratorObjective, backbone: BackboneConfig, spec: LatentSpec, device: torch.device
) -> float:
    """Operations of training on one image, in 1e9 (multiply-add: two).

    Forward and backward count as three forward passes; REPA's frozen target as one of its own.

    Args:
        objective: whose network it is.
        backbone: size of the network, which is counted without being computed.
        spec: of the latents.
        device: of REPA's target.
    """
    own, target = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with torch.device("meta"):
        network = objective.build(backbone, spec)
        label = torch.zeros(1, dtype=torch.int64)
        with own:
            if spec.discrete:
                network(torch.zeros(1, spec.side**2, dtype=torch.int64), label)
            else:
                forward = network
                if isinstance(network, AlignedTransformer):
                    forward = network.with_projections
                forward(torch.zeros(1, spec.channels, spec.side, spec.side), torch.zeros(1), label)
    if isinstance(objective, REPA) and objective.target is not None:
        side = spec.side * spec.factor
        with target:
            image = torch.zeros(1, 3, side, side, device=device)
            objective.target.tokens(image, spec.side // backbone.patch_size)
    return (3 * own.get_total_flops() + target.get_total_flops()) / 1e9
