from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from study.config import BackboneConfig, GeneratorConfig, LatentSpec, load_group
from study.generators.objectives import build_objective
from study.generators.targets import InDomainTarget
from study.generators.work import training_gflop

CPU = torch.device("cpu")


# Multiply-adds of a forward pass in 1e9 [2212.09748, Table 1]: six operations in training.
@pytest.mark.parametrize(
    ("size", "published"), [("S_2", 6.06), ("B_2", 23.01), ("L_2", 80.71), ("XL_2", 118.64)]
)
def test_the_work_of_dit_is_the_published_one(
    size: str, published: float, generators: dict[str, GeneratorConfig], spec: LatentSpec
) -> None:
    config = load_group(BackboneConfig, "backbone", size)
    imagenet = replace(spec, side=32, num_classes=1000)
    work = training_gflop(build_objective(generators["dit"]), config, imagenet, CPU)
    assert work == pytest.approx(6 * published, rel=1e-3)


def test_repa_adds_the_projection_and_one_pass_of_its_target(
    generators: dict[str, GeneratorConfig],
    backbone: BackboneConfig,
    spec: LatentSpec,
    target: InDomainTarget,
) -> None:
    sit, repa = (build_objective(generators[name], target) for name in ("sit", "repa"))
    extra = training_gflop(repa, backbone, spec, CPU) - training_gflop(sit, backbone, spec, CPU)
    # 16 tokens through 32 to 16 to 16 to 4 features, three times.
    projection = 3 * 2 * 16 * (32 * 16 + 16 * 16 + 16 * 4)
    with FlopCounterMode(display=False) as counter:
        target.tokens(torch.zeros(1, 3, 16, 16), 4)
    once = counter.get_total_flops()
    assert once > 0
    assert extra == pytest.approx((projection + once) / 1e9)


def test_tokens_are_counted(
    generators: dict[str, GeneratorConfig], token_backbone: BackboneConfig, token_spec: LatentSpec
) -> None:
    objective = build_objective(generators["maskgit"])
    once, wider = (
        training_gflop(objective, config, token_spec, CPU)
        for config in (token_backbone, replace(token_backbone, depth=2 * token_backbone.depth))
    )
    assert once < wider < 2 * once
