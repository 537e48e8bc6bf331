"""How the variance of square maps (images, latents) is spread over spatial frequencies."""

from dataclasses import dataclass

import torch
from torch import Tensor

from study.config import StudyError

_SMALLEST = 4


@dataclass(slots=True)
class Spectrum:
    """Accumulates the power spectrum of maps B C S S, mean over images and channels.

    P(f) = |FFT(x - mean(x))(f)|^2 / S^2 per map x: its mean over all S^2 coefficients is the
    variance within a map, whatever S, and white noise has P(f) = variance at every f.
    """

    maps: int = 0
    total: Tensor | None = None
    """Sum of P over maps, float64 S S, in the order of `torch.fft.fft2`."""

    def add(self, maps: Tensor) -> None:
        """Add a batch, B C S S.

        Raises:
            StudyError: maps that are not square, too small or of another size than before.
        """
        shape = tuple(maps.shape)
        if maps.ndim != 4 or shape[2] != shape[3] or shape[2] < _SMALLEST:
            rule = f"must be B C S S with S at least {_SMALLEST}"
            raise StudyError(f"spectrum of maps {shape}: {rule}")
        if self.total is not None and shape[2:] != self.total.shape:
            raise StudyError(f"spectrum of maps {shape}: side must be {len(self.total)}")
        maps = maps.double()
        power = torch.fft.fft2(maps - maps.mean((2, 3), keepdim=True)).abs().square()
        total = power.sum((0, 1)).cpu() / shape[2] ** 2
        self.total = total if self.total is None else self.total + total
        self.maps += shape[0] * shape[1]

    def coefficients(self) -> Tensor:
        """Mean P of each coefficient, float64 S S.

        Raises:
            StudyError: nothing was added.
        """
        if self.total is None or self.maps == 0:
            raise StudyError("spectrum of no map: add a batch first")
        return self.total / self.maps

    @property
    def frequency(self) -> Tensor:
        """Mean |f| of each ring's coefficients, cycles per sample; Nyquist is 0.5."""
        return self._rings(_radius(len(self.coefficients())))

    def power(self) -> Tensor:
        """Mean P of each ring k - 1/2 <= S |f| < k + 1/2, for k = 1 to S // 2, without corners."""
        return self._rings(self.coefficients())

    def slope(self) -> float:
        """Spectral slope, see `spectral_slope`."""
        return spectral_slope(self.frequency, self.power())

    def high_frequency_share(self) -> float:
        """Share of the variance at |f| > 0.25, half of Nyquist, corners included.

        Raises:
            StudyError: the maps are constant.
        """
        coefficients = self.coefficients()
        variance = coefficients.sum()
        if not variance > 0:
            raise StudyError("spectrum of constant maps: no variance to share")
        return float(coefficients[_radius(len(coefficients)) > 0.25].sum() / variance)

    def _rings(self, values: Tensor) -> Tensor:
        side = len(values)
        ring = (_radius(side) * side + 0.5).long().flatten()
        means = torch.bincount(ring, values.flatten()) / torch.bincount(ring)
        return means[1 : side // 2 + 1]


def spectral_slope(frequency: Tensor, power: Tensor) -> float:
    """Exponent b of power ~ frequency^b: 0 for white noise, -2 where amplitude falls as 1/f.

    Least squares of log power on log frequency. A ring weighs as much as its frequency, to which
    its number of coefficients is proportional. Rings are coarse: the exponent of power-law
    noise is within 5 % from a side of 8 on.

    Raises:
        StudyError: a power that is not positive has no logarithm.
    """
    if not bool((power > 0).all()):
        raise StudyError("spectral slope: power must be positive in every ring")
    weight = frequency / frequency.sum()
    x, y = frequency.log(), power.log()
    x = x - (weight * x).sum()
    return float((weight * x * y).sum() / (weight * x.square()).sum())


def _radius(side: int) -> Tensor:
    """|f| of each coefficient, cycles per sample, S S."""
    axis = torch.fft.fftfreq(side, dtype=torch.float64)
    return torch.hypot(axis[:, None], axis[None, :])
