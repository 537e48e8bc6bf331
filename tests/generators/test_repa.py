from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.config import BackboneConfig, GeneratorConfig, LatentSpec, REPAConfig
from study.data.store import to_float
from study.generators.common import Batch
from study.generators.repa import REPA, AlignedTransformer
from study.generators.sit import SiT
from study.generators.targets import InDomainTarget

Awaken = Callable[[nn.Module], nn.Module]


@pytest.fixture
def config(generators: dict[str, GeneratorConfig]) -> REPAConfig:
    config = generators["repa"]
    assert isinstance(config, REPAConfig)
    return config


@pytest.fixture
def repa(config: REPAConfig, target: InDomainTarget) -> REPA:
    return REPA(config, target)


@pytest.fixture
def aligned(
    repa: REPA, backbone: BackboneConfig, spec: LatentSpec, awaken: Awaken
) -> AlignedTransformer:
    network = awaken(repa.build(backbone, spec))
    assert isinstance(network, AlignedTransformer)
    return network


@pytest.fixture
def batch(images: np.ndarray) -> Batch:
    torch.manual_seed(0)
    return Batch(
        latents=torch.randn(4, 4, 8, 8),
        tokens=None,
        labels=torch.arange(4),
        images=to_float(torch.from_numpy(images[:4])),
    )


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_trunk_starts_where_sit_starts(
    repa: REPA, config: REPAConfig, backbone: BackboneConfig, spec: LatentSpec
) -> None:
    torch.manual_seed(0)
    ours = repa.build(backbone, spec).state_dict()
    torch.manual_seed(0)
    theirs = SiT(config).build(backbone, spec).state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert {name.split(".")[0] for name in set(ours) - set(theirs)} == {"projector"}


def test_the_velocity_term_is_sits(
    repa: REPA, config: REPAConfig, aligned: AlignedTransformer, batch: Batch
) -> None:
    ours = repa.terms(aligned, batch, seeded())["velocity"]
    assert torch.equal(ours, SiT(config).terms(aligned, batch, seeded())["velocity"])


def test_perfect_alignment_has_term_minus_one(
    repa: REPA,
    aligned: AlignedTransformer,
    batch: Batch,
    target: InDomainTarget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert batch.images is not None
    features = target.tokens(batch.images, 4)

    def perfect(x: Tensor, t: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return x, 3 * features

    monkeypatch.setattr(aligned, "with_projections", perfect)
    term = repa.terms(aligned, batch, seeded())["projection"]
    assert float(term) == pytest.approx(-1, abs=1e-5)


def test_projection_weighs_as_configured(repa: REPA) -> None:
    assert repa.weights == {"velocity": 1.0, "projection": 0.5}


def test_the_projection_term_reaches_blocks_up_to_its_depth(
    repa: REPA, aligned: AlignedTransformer, batch: Batch
) -> None:
    repa.terms(aligned, batch, seeded())["projection"].backward()
    reached = {n for n, p in aligned.named_parameters() if p.grad is not None and p.grad.any()}
    parts = {".".join(name.split(".")[:2]) for name in reached}
    assert {"blocks.0", "projector.0", "projector.4", "x_embedder.proj"} <= parts
    assert not {"blocks.1", "final_layer.linear"} & parts


def test_the_velocity_term_does_not_reach_the_projector(
    repa: REPA, aligned: AlignedTransformer, batch: Batch
) -> None:
    repa.terms(aligned, batch, seeded())["velocity"].backward()
    assert all(p.grad is None for p in aligned.projector.parameters())
    assert aligned.final_layer.linear.weight.grad is not None


def test_the_target_gets_no_gradient(
    repa: REPA, aligned: AlignedTransformer, batch: Batch, target: InDomainTarget
) -> None:
    target.network.requires_grad_(True)
    sum(repa.terms(aligned, batch, seeded()).values(), torch.zeros(())).backward()
    assert all(p.grad is None for p in target.network.parameters())


def test_the_projection_term_equals_the_formula_sample_by_sample(
    repa: REPA, aligned: AlignedTransformer, batch: Batch, target: InDomainTarget
) -> None:
    assert batch.images is not None
    x_t, t, _ = repa.noised(batch, seeded())
    _, hidden = aligned.with_hidden(x_t, t, batch.labels, aligned.depth)
    features = target.tokens(batch.images, 4).double()
    losses = []
    for sample in range(4):
        tokens = []
        for n in range(16):
            ours = aligned.projector(hidden[sample, n]).detach().double()
            theirs = features[sample, n]
            tokens.append(float(ours @ theirs / (ours.norm() * theirs.norm())))
        losses.append(-sum(tokens) / 16)
    terms = repa.terms(aligned, batch, seeded())
    assert terms["projection"].dtype == torch.float32
    assert float(terms["projection"].detach()) == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_one_projection_call_serves_the_whole_batch(
    repa: REPA, aligned: AlignedTransformer, batch: Batch
) -> None:
    shapes: list[torch.Size] = []
    aligned.projector.register_forward_hook(lambda m, i, output: shapes.append(output.shape))
    repa.terms(aligned, batch, seeded())
    assert shapes == [(4, 16, 4)]


def test_the_projector_has_three_layers_of_the_configured_width(
    aligned: AlignedTransformer,
) -> None:
    kinds = [type(layer).__name__ for layer in aligned.projector]
    assert kinds == ["Linear", "SiLU", "Linear", "SiLU", "Linear"]
    shapes = [layer.weight.shape for layer in aligned.projector if isinstance(layer, nn.Linear)]
    assert shapes == [(16, 32), (16, 16), (4, 16)]


def test_the_target_is_named(repa: REPA, config: REPAConfig) -> None:
    assert repa.target_name == "in_domain"
    assert REPA(config, None).target_name == ""


def test_images_are_required(repa: REPA, aligned: AlignedTransformer, batch: Batch) -> None:
    batch.images = None
    with pytest.raises(ValueError, match="images in the batch"):
        repa.terms(aligned, batch, seeded())


def test_training_needs_the_target(
    config: REPAConfig, aligned: AlignedTransformer, batch: Batch
) -> None:
    with pytest.raises(ValueError, match="no target network"):
        REPA(config, None).terms(aligned, batch, seeded())
