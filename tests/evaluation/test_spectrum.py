import math

import pytest
import torch
from torch import Tensor

from study.config import StudyError
from study.evaluation.spectrum import Spectrum, spectral_slope


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def white(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def power_law(rng: torch.Generator, side: int, exponent: float) -> Tensor:
    """Noise of power |f|^exponent; as many values whatever the side."""
    axis = torch.fft.fftfreq(side, dtype=torch.float64)
    amplitude = torch.hypot(axis[:, None], axis) ** (exponent / 2)
    amplitude[0, 0] = 0
    return torch.fft.ifft2(
        torch.fft.fft2(white(rng, 2**17 // side**2, 2, side, side)) * amplitude
    ).real


def radial_spectrum(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Frequency and power of maps B C S S, each S // 2."""
    spectrum = Spectrum()
    spectrum.add(maps)
    return spectrum.frequency, spectrum.power()


def cosine(side: int, rows: int, columns: int) -> Tensor:
    """A map of variance 1 with one frequency, in cycles per side."""
    place = torch.arange(side, dtype=torch.float64)
    phase = rows * place[:, None] + columns * place
    return math.sqrt(2) * torch.cos(2 * math.pi * phase / side + 0.3)[None, None]


@pytest.mark.parametrize("side", [31, 32])
def test_white_noise_has_its_variance_at_every_frequency(side: int, rng: torch.Generator) -> None:
    _, power = radial_spectrum(3 * white(rng, 300, 4, side, side) + 7)
    assert power.shape == (side // 2,)
    torch.testing.assert_close(power, torch.full_like(power, 9), rtol=0.05, atol=0)


def test_frequencies_run_in_steps_of_one_per_side_up_to_nyquist(rng: torch.Generator) -> None:
    frequency, _ = radial_spectrum(white(rng, 1, 1, 32, 32))
    # The first ring holds 4 coefficients at 1 and 4 at the square root of 2.
    assert float(frequency[0]) == pytest.approx((1 + math.sqrt(2)) / 2 / 32)
    steps = torch.arange(1, 17, dtype=torch.float64) / 32
    torch.testing.assert_close(frequency, steps, rtol=0, atol=0.25 / 32)


@pytest.mark.parametrize(
    ("rows", "columns", "ring"), [(3, 0, 3), (0, 7, 7), (3, 4, 5), (16, 0, 16)]
)
def test_a_cosine_lies_in_the_ring_of_its_frequency(rows: int, columns: int, ring: int) -> None:
    wave = cosine(32, rows, columns)
    frequency, power = radial_spectrum(wave / wave.std(correction=0))
    assert float(frequency[ring - 1] * 32) == pytest.approx(math.hypot(rows, columns), abs=0.5)
    assert float(power[ring - 1]) > 1
    rest = torch.cat([power[: ring - 1], power[ring:]])
    assert float(rest.abs().max()) < 1e-20


def test_coefficients_have_the_variance_as_their_mean(rng: torch.Generator) -> None:
    maps = white(rng, 5, 3, 12, 12) * torch.tensor([1.0, 2.0, 5.0]).view(1, 3, 1, 1) + 4
    spectrum = Spectrum()
    spectrum.add(maps)
    within = maps.var((2, 3), correction=0).mean()
    torch.testing.assert_close(spectrum.coefficients().mean(), within, rtol=1e-12, atol=0)


def test_the_power_of_a_ring_is_the_mean_of_its_coefficients(rng: torch.Generator) -> None:
    spectrum = Spectrum()
    spectrum.add(white(rng, 1, 1, 8, 8))
    p = spectrum.coefficients()
    # The 8 neighbours of zero: indices -1, 0, 1 in each direction.
    around = [p[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    assert float(spectrum.power()[0]) == pytest.approx(float(sum(around)) / 8, rel=1e-12)


@pytest.mark.parametrize("side", [8, 16, 32, 64])
@pytest.mark.parametrize("exponent", [-2.0, -1.0])
def test_power_law_noise_has_its_slope(side: int, exponent: float, rng: torch.Generator) -> None:
    slope = spectral_slope(*radial_spectrum(power_law(rng, side, exponent)))
    assert slope == pytest.approx(exponent, rel=0.05)


def test_an_exact_power_law_has_its_exponent() -> None:
    frequency = torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64)
    assert spectral_slope(frequency, 7 * frequency**-2.5) == pytest.approx(-2.5, rel=1e-12)


def test_high_rings_weigh_more_in_the_slope() -> None:
    # Two equal halves of log frequency: 0 below, -2 above.
    frequency = torch.tensor([0.125, 0.25, 0.5], dtype=torch.float64)
    power = torch.tensor([4.0, 4.0, 1.0], dtype=torch.float64)
    assert -2 < spectral_slope(frequency, power) < -1.1


def test_the_slope_ignores_contrast_and_brightness(rng: torch.Generator) -> None:
    maps = power_law(rng, 16, -2)
    slopes = [spectral_slope(*radial_spectrum(x)) for x in (maps, 100 * maps - 3)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-9)


def test_batches_add_up(rng: torch.Generator) -> None:
    maps = white(rng, 7, 2, 8, 8)
    whole, parts = Spectrum(), Spectrum()
    whole.add(maps)
    for batch in maps.split(3):
        parts.add(batch)
    assert parts.maps == whole.maps == 14
    torch.testing.assert_close(parts.power(), whole.power(), rtol=1e-12, atol=0)
    assert parts.slope() == pytest.approx(whole.slope(), rel=1e-9)
    assert whole.slope() == spectral_slope(*radial_spectrum(maps))


def test_single_precision_maps_are_transformed_in_double(rng: torch.Generator) -> None:
    maps = white(rng, 2, 1, 8, 8).float()
    _, power = radial_spectrum(maps)
    torch.testing.assert_close(power, radial_spectrum(maps.double())[1], rtol=0, atol=0)


def test_high_frequencies_of_white_noise_hold_all_but_a_disc(rng: torch.Generator) -> None:
    spectrum = Spectrum()
    spectrum.add(white(rng, 100, 4, 64, 64) + 9)
    # A disc of radius 1/4 in the unit square; the mean does not count.
    assert spectrum.high_frequency_share() == pytest.approx(1 - math.pi / 16, rel=0.01)


@pytest.mark.parametrize(("rows", "columns", "share"), [(8, 0, 0), (5, 7, 1), (16, 16, 1)])
def test_a_cosine_is_high_beyond_half_of_nyquist(rows: int, columns: int, share: int) -> None:
    spectrum = Spectrum()
    spectrum.add(cosine(32, rows, columns))
    assert spectrum.high_frequency_share() == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("shape", [(2, 1, 8, 16), (2, 1, 3, 3), (8, 8)])
def test_maps_that_are_not_square_or_too_small_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(StudyError, match=r"^spectrum of maps \(.*\): must be B C S S .* 4$"):
        radial_spectrum(torch.zeros(shape))


def test_maps_of_another_side_are_refused() -> None:
    spectrum = Spectrum()
    spectrum.add(torch.zeros(1, 1, 8, 8))
    with pytest.raises(StudyError, match=r"^spectrum of maps \(1, 1, 4, 4\): side must be 8$"):
        spectrum.add(torch.zeros(1, 1, 4, 4))


def test_no_maps_have_no_spectrum() -> None:
    with pytest.raises(StudyError, match="add a batch first"):
        Spectrum().power()


def test_constant_maps_have_neither_slope_nor_share() -> None:
    spectrum = Spectrum()
    spectrum.add(torch.ones(2, 1, 8, 8))
    with pytest.raises(StudyError, match="power must be positive"):
        spectrum.slope()
    with pytest.raises(StudyError, match="constant maps"):
        spectrum.high_frequency_share()
