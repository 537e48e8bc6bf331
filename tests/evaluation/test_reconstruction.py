import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from study.evaluation.reconstruction import psnr_db, ssim


@pytest.mark.parametrize(("difference", "decibel"), [(1.0, 0), (0.1, 20), (0.01, 40)])
def test_psnr_of_a_known_error(difference: float, decibel: float) -> None:
    images = torch.zeros(2, 3, 16, 16)
    assert psnr_db(images, images + difference).tolist() == pytest.approx([decibel] * 2, abs=1e-3)


def test_psnr_is_per_image_over_all_channels() -> None:
    images, others = torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, 4, 4)
    others[1, 0] = 0.2
    assert psnr_db(images, others)[1].item() == pytest.approx(10 * np.log10(1 / 0.02), abs=1e-4)


def test_psnr_of_identical_images_is_finite() -> None:
    images = torch.rand(2, 3, 16, 16)
    assert psnr_db(images, images).tolist() == pytest.approx([120, 120])


def test_ssim_of_identical_images_is_one() -> None:
    images = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(ssim(images, images), torch.ones(4))


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (0.2, 0.6), (0.5, 0.5)])
def test_ssim_of_constants_is_the_luminance_term(a: float, b: float) -> None:
    ours, theirs = (torch.full((1, 3, 16, 16), v, dtype=torch.float64) for v in (a, b))
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert float(ssim(ours, theirs)) == pytest.approx(expected, rel=1e-9)


def test_ssim_equals_an_independent_one() -> None:
    rng = np.random.default_rng(0)
    ours = rng.random((20, 24))
    theirs = np.clip(ours + 0.2 * rng.normal(size=ours.shape), 0, 1)

    def blur(x: np.ndarray) -> np.ndarray:
        # scipy's Gaussian of radius 5; only positions whose window lies inside the image.
        return gaussian_filter(x, 1.5, radius=5)[5:-5, 5:-5]

    a, b = blur(ours), blur(theirs)
    var_a, var_b, both = blur(ours**2) - a**2, blur(theirs**2) - b**2, blur(ours * theirs) - a * b
    expected = (2 * a * b + 1e-4) * (2 * both + 9e-4)
    expected /= (a**2 + b**2 + 1e-4) * (var_a + var_b + 9e-4)
    found = ssim(*(torch.from_numpy(x).expand(1, 3, -1, -1) for x in (ours, theirs)))
    assert float(found) == pytest.approx(expected.mean(), rel=1e-9)


def test_ssim_is_symmetric_and_per_image() -> None:
    ours, theirs = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)
    theirs[1] = ours[1]
    torch.testing.assert_close(ssim(ours, theirs), ssim(theirs, ours))
    assert ssim(ours, theirs).argmax() == 1
