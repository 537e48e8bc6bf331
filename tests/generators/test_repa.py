from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import BackboneConfig, GeneratorConfig, LatentSpec, REPAConfig
from study.data.store import to_float
from study.evaluation.networks.in_domain import InDomainNetwork, build_network
from study.generators.common import Batch
from study.generators.repa import REPA, AlignedTransformer
from study.generators.sit import SiT

Awaken = Callable[[nn.Module], nn.Module]


@pytest.fixture
def config(generators: dict[str, GeneratorConfig]) -> REPAConfig:
    config = generators["repa"]
    assert isinstance(config, REPAConfig)
    return config


@pytest.fixture
def target() -> InDomainNetwork:
    """Grid of 4 x 4 for images of 16 x 16, 4 channels."""
    torch.manual_seed(3)
    return build_network("patch", [4, 8], 8, 4).eval().requires_grad_(False)


@pytest.fixture
def repa(config: REPAConfig, target: InDomainNetwork) -> REPA:
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
    repa: REPA, aligned: AlignedTransformer, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batch.images is not None
    features = repa.target_tokens(batch.images, 4)

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
    repa: REPA, aligned: AlignedTransformer, batch: Batch, target: InDomainNetwork
) -> None:
    target.requires_grad_(True)
    sum(repa.terms(aligned, batch, seeded()).values(), torch.zeros(())).backward()
    assert all(p.grad is None for p in target.parameters())


def test_target_tokens_are_the_grid_row_by_row(
    repa: REPA, batch: Batch, target: InDomainNetwork
) -> None:
    assert batch.images is not None
    maps = target.grid(batch.images)
    tokens = repa.target_tokens(batch.images, 4)
    assert tokens.shape == (4, 16, 4)
    assert torch.equal(tokens[:, 1 * 4 + 2], maps[:, :, 1, 2])


def test_a_finer_target_is_averaged(repa: REPA, batch: Batch, target: InDomainNetwork) -> None:
    assert batch.images is not None
    maps = functional.avg_pool2d(target.grid(batch.images), 2)
    torch.testing.assert_close(repa.target_tokens(batch.images, 2), maps.flatten(2).transpose(1, 2))


def test_a_coarser_target_is_interpolated(
    repa: REPA, batch: Batch, target: InDomainNetwork
) -> None:
    assert batch.images is not None
    tokens = repa.target_tokens(batch.images, 8)
    assert tokens.shape == (4, 64, 4)
    torch.testing.assert_close(tokens[:, 0], target.grid(batch.images)[:, :, 0, 0])


def test_depth_beyond_the_backbone_is_refused(
    config: REPAConfig, target: InDomainNetwork, backbone: BackboneConfig, spec: LatentSpec
) -> None:
    deep = REPA(replace(config, projection_depth=3), target)
    with pytest.raises(ValueError, match="projection_depth = 3: must be at most"):
        deep.build(backbone, spec)


def test_images_are_required(repa: REPA, aligned: AlignedTransformer, batch: Batch) -> None:
    batch.images = None
    with pytest.raises(ValueError, match="images in the batch"):
        repa.terms(aligned, batch, seeded())


def test_training_needs_the_target(
    config: REPAConfig, aligned: AlignedTransformer, batch: Batch
) -> None:
    with pytest.raises(ValueError, match="no target network"):
        REPA(config, None).terms(aligned, batch, seeded())
