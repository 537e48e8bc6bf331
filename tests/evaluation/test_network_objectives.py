import numpy as np
import pytest
import torch
from torch import Tensor

from study.evaluation.network_objectives import VICReg, _covariance, _variance, view
from study.evaluation.networks.in_domain import build_network


def test_variance_is_what_standard_deviations_fall_short_of_one() -> None:
    scale = torch.tensor([0.5, 2.0])
    z = scale * torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    std = 0.5 * (4 / 3) ** 0.5
    assert float(_variance(z)) == pytest.approx((1 - (std**2 + 1e-4) ** 0.5) / 2)


def test_covariance_counts_pairs_of_different_dimensions() -> None:
    z = torch.tensor([[-1.0, -2.0, 3.0], [1.0, 2.0, 3.0]])
    # Variances 2 and 8, covariance 4 twice.
    assert float(_covariance(z)) == pytest.approx(2 * 16 / 3)


def test_embeddings_that_agree_vary_and_are_uncorrelated_cost_nothing() -> None:
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(_variance(2 * signs)) == 0
    assert float(_covariance(2 * signs)) == 0


def test_every_parameter_is_reached_by_the_sum_of_terms() -> None:
    torch.manual_seed(0)
    objective = VICReg(build_network("bottleneck", [4, 8], 8, 0), 8)
    images = torch.rand(8, 3, 16, 16) * 2 - 1
    terms = objective(images, torch.zeros(8), np.random.default_rng(0))
    torch.stack([*terms.values()]).sum().backward()
    unreached = [n for n, p in objective.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


@pytest.fixture
def coordinates() -> Tensor:
    """Channel 0 holds the row, channel 1 the column."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    return torch.stack([rows, columns, torch.zeros(16, 16)]).repeat(64, 1, 1, 1)


def test_a_view_is_a_crop_perhaps_mirrored_with_an_affine_change_of_each_channel(
    coordinates: Tensor,
) -> None:
    views = view(coordinates, np.random.default_rng(0))
    assert views.shape == (64, 3, 14, 14)
    coloured = views[views[:, 0].sub(views[:, 1]).abs().amax((1, 2)) > 0]
    assert 40 < len(coloured) < 62
    steps = coloured[:, 0].diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1, :1].expand_as(steps), atol=1e-4, rtol=0)
    assert ((steps > 0.59) & (steps < 1.41)).all()
    across = coloured[:, 1].diff(dim=2)[:, 0, 0]
    assert 0.2 < float((across < 0).float().mean()) < 0.8
    # Nothing is resampled: rows stay rows.
    assert coloured[:, 0].diff(dim=2).abs().max() < 1e-4


def test_places_colours_and_mirroring_differ_between_images(coordinates: Tensor) -> None:
    views = view(coordinates, np.random.default_rng(0))
    assert len(torch.unique(views.flatten(1), dim=0)) == 64


def test_a_view_depends_on_the_generator_alone(coordinates: Tensor) -> None:
    one, two, other = (view(coordinates, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
