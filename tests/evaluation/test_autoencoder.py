from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.autoencoders.models import Autoencoder, Posterior
from study.config import Interpolation
from study.data.store import to_float, to_uint8
from study.equivariance import EquivarianceError, Transform
from study.evaluation.autoencoder import batches, equivariance_errors, reconstruct
from study.evaluation.reconstruction import psnr_db, ssim


class Pooling(nn.Module):
    """An autoencoder that averages 2 x 2 pixels and repeats them."""

    factor, channels = 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def encode(self, images: Tensor) -> Posterior:
        return Posterior(nn.functional.avg_pool2d(images, 2), None)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.fixture
def pooling(kl: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> Autoencoder:
    toy = Pooling()
    monkeypatch.setattr(kl, "encode", toy.encode)
    monkeypatch.setattr(kl, "decode", toy.decode)
    return kl


def test_batches_are_all_images_in_order(images: np.ndarray) -> None:
    parts = list(batches(images, 5, torch.device("cpu")))
    assert [len(part) for part in parts] == [5, 5, 5, 1]
    assert torch.equal(torch.cat(parts), to_float(torch.from_numpy(images)))


def test_a_constant_image_is_reconstructed_by_pooling(pooling: Autoencoder) -> None:
    images = np.full((3, 3, 16, 16), 77, dtype=np.uint8)
    result = reconstruct(pooling, images, 2)
    assert np.array_equal(result.images, images)
    assert result.psnr_db.tolist() == pytest.approx([120] * 3)
    assert result.ssim.tolist() == pytest.approx([1] * 3)


def test_reconstruction_goes_through_the_mean(kl: Autoencoder, images: np.ndarray) -> None:
    result = reconstruct(kl, images, 16)
    x = to_float(torch.from_numpy(images))
    mean = kl.encode(x).mean
    decoded = to_uint8(kl.decode(mean))
    truth = torch.from_numpy(images)
    assert torch.equal(torch.from_numpy(result.images), decoded)
    assert torch.equal(result.psnr_db, psnr_db(decoded / 255, truth / 255))
    assert torch.equal(result.ssim, ssim(decoded / 255, truth / 255))
    torch.testing.assert_close(result.latent_mean, mean.mean((0, 2, 3)).detach())
    torch.testing.assert_close(result.latent_std, mean.std((0, 2, 3)).detach())


def test_batch_size_does_not_change_a_measurement(
    autoencoder: Autoencoder, images: np.ndarray
) -> None:
    one, other = (reconstruct(autoencoder, images, size) for size in (16, 3))
    torch.testing.assert_close(one.psnr_db, other.psnr_db, atol=1e-2, rtol=0)
    ours, theirs = (equivariance_errors(autoencoder, images, size, [0.5]) for size in (16, 3))
    for name, error in ours.items():
        assert error.variance_form() == pytest.approx(theirs[name].variance_form(), rel=1e-3)


def test_pooling_commutes_with_turns_and_halving(pooling: Autoencoder, images: np.ndarray) -> None:
    # Bilinear halving without antialias averages 2 x 2 pixels too.
    errors = equivariance_errors(pooling, images, 8, [0.5])
    assert set(errors) == {"turn_90", "turn_180", "turn_270", "scale_0.5"}
    assert all(error.images == 16 for error in errors.values())
    assert [error.paper_form() for error in errors.values()] == pytest.approx([0] * 4, abs=1e-9)


@pytest.mark.parametrize(("name", "side", "turns"), [("turn_270", 8, 3), ("scale_0.25", 2, 0)])
def test_an_error_is_that_of_the_transform_in_its_name(
    kl: Autoencoder, images: np.ndarray, name: str, side: int, turns: int
) -> None:
    tau = Transform(side, side, turns, Interpolation.bilinear, antialias=False)
    x = to_float(torch.from_numpy(images))
    expected = EquivarianceError()
    with torch.no_grad():
        moved = kl.encode(tau.on_images(x, 2)).mean
        expected.add(tau.on_latents(kl.encode(x).mean), moved)
    found = equivariance_errors(kl, images, 16, [0.25])[name]
    assert found.paper_form() == pytest.approx(expected.paper_form(), rel=1e-6)
    assert found.variance_form() == pytest.approx(expected.variance_form(), rel=1e-6)


def test_an_ordinary_encoder_has_an_error(kl: Autoencoder, images: np.ndarray) -> None:
    errors = equivariance_errors(kl, images, 8, [0.25, 0.75])
    assert all(error.variance_form() > 0.01 for error in errors.values())


def test_measuring_leaves_training_possible(
    kl: Autoencoder, images: np.ndarray, tmp_path: Path
) -> None:
    equivariance_errors(kl, images, 8, [0.5])
    x = to_float(torch.from_numpy(images))
    kl.decode(kl.encode(x).mean).mean().backward()
    assert kl.last_layer().grad is not None
