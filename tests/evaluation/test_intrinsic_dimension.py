import pytest
import torch
from torch import Tensor

from study.config import StudyError
from study.evaluation.intrinsic_dimension import two_nn


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def turn(rng: torch.Generator, width: int) -> Tensor:
    """A random orthogonal matrix."""
    return torch.linalg.qr(normal(rng, width, width)).Q


def sphere(rng: torch.Generator, dimension: int, count: int) -> Tensor:
    """Uniform points on a sphere in 100 dimensions, turned at random."""
    points = torch.zeros(count, 100, dtype=torch.float64)
    points[:, : dimension + 1] = normal(rng, count, dimension + 1)
    return points / points.norm(dim=1, keepdim=True) @ turn(rng, 100)


@pytest.mark.parametrize("dimension", [2, 5, 10])
def test_a_sphere_has_its_own_dimension_not_that_of_its_space(
    dimension: int, rng: torch.Generator
) -> None:
    assert two_nn(sphere(rng, dimension, 5000)) == pytest.approx(dimension, rel=0.1)


def test_a_line_has_one_dimension(rng: torch.Generator) -> None:
    place = torch.rand(2000, 1, generator=rng, dtype=torch.float64)
    assert two_nn(place * normal(rng, 1, 30) + 5) == pytest.approx(1, rel=0.1)


def test_scale_shift_and_turn_change_nothing(rng: torch.Generator) -> None:
    points = sphere(rng, 3, 400)
    moved = 1000 * points @ turn(rng, 100) + normal(rng, 100)
    assert two_nn(moved) == pytest.approx(two_nn(points), rel=1e-6)


def test_order_and_duplicates_do_not_matter(rng: torch.Generator) -> None:
    points = sphere(rng, 3, 400)
    repeated = torch.cat([points[::2], points.flip(0), points[:7]])
    assert two_nn(repeated) == two_nn(points)


def test_near_duplicates_far_from_the_origin_keep_their_distances(rng: torch.Generator) -> None:
    # At 2^20 with neighbours 2^-20 apart, squared norms hold none of the distance's digits.
    points = 2.0**-20 * torch.rand(300, 3, generator=rng, dtype=torch.float64).mul(2**12).round()
    assert two_nn(points + 2.0**20) == pytest.approx(two_nn(points), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_distances_are_in_double_precision(dtype: torch.dtype, rng: torch.Generator) -> None:
    points = sphere(rng, 3, 400).to(dtype)
    assert two_nn(points) == two_nn(points.double())


def test_more_points_than_fit_in_memory_at_once_are_all_used(
    rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = sphere(rng, 3, 300)
    expected = two_nn(points)
    for rows in (1, 7, 300):
        monkeypatch.setattr("study.evaluation.intrinsic_dimension._ROWS", rows)
        assert two_nn(points) == pytest.approx(expected, rel=1e-9)


def test_the_fit_leaves_out_the_largest_ratios() -> None:
    # Second over first distance: 3/2, 2/1, 3/1 and 4/3.
    points = torch.tensor([[0.0], [2.0], [3.0], [6.0]])
    x = torch.tensor([4 / 3, 3 / 2, 2.0]).double().log()
    y = -torch.tensor([3 / 4, 1 / 2, 1 / 4]).double().log()
    for discarded, kept in ((0.0, 3), (0.1, 3), (0.5, 2), (0.75, 1)):
        slope = (x[:kept] * y[:kept]).sum() / x[:kept].square().sum()
        assert two_nn(points, discarded) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_distinct_points_are_refused(count: int) -> None:
    points = torch.arange(count, dtype=torch.float32).view(-1, 1).repeat(5, 4)
    with pytest.raises(StudyError, match=f"^{count} distinct points: must be at least 3"):
        two_nn(points)


def test_a_value_that_is_not_finite_is_refused(rng: torch.Generator) -> None:
    points = normal(rng, 10, 3)
    points[4, 1] = torch.nan
    with pytest.raises(StudyError, match=r"^intrinsic dimension of 10 points: .* finite$"):
        two_nn(points)


def test_points_on_a_grid_have_no_ratios() -> None:
    with pytest.raises(StudyError, match="two nearest neighbours are equally far"):
        two_nn(torch.arange(4.0)[:, None], discarded=0.5)
