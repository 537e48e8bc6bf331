"""The Halton order of a token grid [Halton-MaskGIT, 2503.17076]."""

from functools import lru_cache

import numpy as np

BASES = (2, 3)
"""Of rows and of columns."""


@lru_cache(maxsize=8)
def halton_order(side: int) -> np.ndarray:
    """Positions (row times side plus column) in the order in which the sequence first visits them.

    Any first part of it is spread evenly over the grid.

    Args:
        side: of the grid.

    Returns:
        a permutation of side^2 positions.
    """
    count, visited = 4 * side**2, np.zeros(0, dtype=np.int64)
    while len(visited) < side**2:
        numbers = np.arange(1, count + 1)
        rows, columns = (np.floor(radical_inverse(numbers, b) * side).astype(int) for b in BASES)
        cells = rows * side + columns
        visited = cells[np.sort(np.unique(cells, return_index=True)[1])]
        count *= 2
    return visited


def radical_inverse(numbers: np.ndarray, base: int) -> np.ndarray:
    """Digits of whole numbers mirrored at the point, in [0, 1)."""
    value, digit, rest = np.zeros(len(numbers)), 1.0, numbers.copy()
    while rest.any():
        digit /= base
        value += digit * (rest % base)
        rest //= base
    return value
