import numpy as np
import pytest
import torch

from study.generators.halton import halton_order, radical_inverse


@pytest.mark.parametrize("side", [1, 2, 3, 8, 16, 24])
def test_every_position_comes_once(side: int) -> None:
    assert sorted(halton_order(side)) == list(range(side**2))


def test_digits_are_mirrored() -> None:
    numbers = np.arange(1, 6)
    assert radical_inverse(numbers, 2).tolist() == [1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8]
    expected = [1 / 3, 2 / 3, 1 / 9, 4 / 9, 7 / 9]
    np.testing.assert_allclose(radical_inverse(numbers, 3), expected, rtol=1e-12)


def test_the_sequence_equals_the_librarys() -> None:
    from scipy.stats.qmc import Halton

    theirs = Halton(2, scramble=False).random(101)[1:]
    numbers = np.arange(1, 101)
    ours = np.stack([radical_inverse(numbers, base) for base in (2, 3)], axis=1)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_first_positions_are_those_of_the_sequence() -> None:
    # Points (1/2, 1/3), (1/4, 2/3), (3/4, 1/9) of a grid of 4 x 4, row by row.
    assert halton_order(4)[:3].tolist() == [2 * 4 + 1, 1 * 4 + 2, 3 * 4 + 0]


@pytest.mark.parametrize("first", [16, 36, 72, 144])
def test_any_first_part_is_spread_evenly(first: int) -> None:
    rows, columns = divmod(halton_order(16)[:first], 16)
    quadrants = np.bincount(2 * (rows // 8) + columns // 8, minlength=4)
    # Random positions would differ by four standard deviations of a binomial count: 14 of 72.
    assert np.abs(quadrants - first / 4).max() <= 2


def test_the_order_is_an_index() -> None:
    assert torch.from_numpy(halton_order(8)).dtype == torch.int64
