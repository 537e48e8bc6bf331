from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder
from study.evaluation.pictures import Colours, enlarge, latent_sheet, transform_sheet

MakeOf = Callable[..., Autoencoder]


@pytest.fixture
def latents() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(20, 4, 8, 8) @ torch.randn(8, 8)


def tiles(images: np.ndarray, columns: int) -> np.ndarray:
    """Rows of tiles without the gaps: R C 3 S S."""
    return images[..., :-1, :-1].reshape(-1, columns, *images.shape[1:2], 16, 16)


def test_the_first_component_is_the_direction_of_most_variance() -> None:
    torch.manual_seed(0)
    values = torch.randn(10, 1, 8, 8)
    noise = 0.1 * torch.randn(10, 4, 8, 8)
    mixed = torch.tensor([1.0, 2.0, -5.0, 0.0]).view(4, 1, 1) * values + noise
    red = Colours(mixed)(mixed, 8)[:, 0].astype(float)
    # Its sign is that of the largest weight; of channels 1 to 3, equal once standardised, any.
    assert abs(np.corrcoef(red.ravel(), values.numpy().ravel())[0, 1]) > 0.98


def test_colours_run_from_the_1st_to_the_99th_percentile(latents: Tensor) -> None:
    colours = Colours(latents)(latents, 8)
    assert colours.shape == (20, 3, 8, 8)
    for component in colours.transpose(1, 0, 2, 3):
        ends = [(component == end).mean() for end in (0, 255)]
        assert ends == pytest.approx([0.01, 0.01], abs=3e-3)


def test_colours_do_not_depend_on_scale_shift_or_order(latents: Tensor) -> None:
    scale, shift = torch.tensor([[3.0, 1.0, 0.1, 9.0], [1.0, -5.0, 0.0, 2.0]]).view(2, 4, 1, 1)
    expected = Colours(latents)(latents, 8)
    moved = latents * scale + shift
    np.testing.assert_allclose(Colours(moved)(moved, 8), expected.astype(float), atol=1)
    again = Colours(latents.flip(0))(latents, 8)
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("channels", [1, 2])
def test_few_channels_leave_grey(channels: int) -> None:
    latents = torch.randn(5, channels, 8, 8)
    colours = Colours(latents)(latents, 8)
    assert set(np.unique(colours[:, channels:])) == {128}
    assert len(np.unique(colours[:, :channels])) > 100


def test_constant_latents_are_grey() -> None:
    assert set(np.unique(Colours(torch.ones(4, 4, 8, 8))(torch.ones(1, 4, 8, 8), 8))) == {128}


@pytest.mark.parametrize("side", [8, 12, 16])
def test_enlarging_repeats_pixels(side: int) -> None:
    small = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    large = enlarge(small, side)
    assert large.shape == (1, 1, side, side)
    if side % 4 == 0:
        np.testing.assert_array_equal(large, small.repeat(side // 4, -1).repeat(side // 4, -2))


def test_columns_of_latents_of_an_equivariant_encoder_are_pairs(
    pooling: Autoencoder, images: np.ndarray
) -> None:
    sheet = latent_sheet(pooling, images)
    assert sheet.columns == 6
    assert sheet.images.shape == (4 * 6, 3, 17, 17)
    shown = tiles(sheet.images, 6)
    np.testing.assert_array_equal(shown[:, 0], images[:4])
    np.testing.assert_array_equal(shown[:, 2], shown[:, 3])
    np.testing.assert_array_equal(shown[:, 4], shown[:, 5])
    np.testing.assert_array_equal(shown[:, 2], np.rot90(shown[:, 1], 1, (2, 3)))


def test_columns_of_latents_of_another_encoder_differ(
    unshuffling: Autoencoder, images: np.ndarray
) -> None:
    shown = tiles(latent_sheet(unshuffling, images).images, 6)
    assert (shown[:, 2] != shown[:, 3]).any()
    assert (shown[:, 4] != shown[:, 5]).any()


def test_decoded_latents_stand_below_the_transformed_image(
    identity: Autoencoder, images: np.ndarray
) -> None:
    sheet = transform_sheet(identity, images)
    assert sheet.columns == 8
    shown = tiles(sheet.images, 8)
    assert shown.shape[:2] == (2, 8)
    np.testing.assert_array_equal(shown[0], shown[1])
    for index in range(2):
        turned, upside_down = shown[0, 4 * index : 4 * index + 2]
        np.testing.assert_array_equal(turned, np.rot90(images[index], 1, (1, 2)))
        np.testing.assert_array_equal(upside_down, np.rot90(images[index], 2, (1, 2)))
    small = shown[0, 2, :, ::2, ::2].astype(float)
    np.testing.assert_allclose(small, images[0].reshape(3, 8, 2, 8, 2).mean((2, 4)), atol=0.51)


def test_the_same_autoencoder_gives_the_same_pictures(
    autoencoder: Autoencoder, images: np.ndarray
) -> None:
    for sheet in (latent_sheet, transform_sheet):
        one, two = (sheet(autoencoder, images) for _ in range(2))
        np.testing.assert_array_equal(one.images, two.images)


def test_few_images_are_shown_as_they_are(kl: Autoencoder, images: np.ndarray) -> None:
    assert latent_sheet(kl, images[:1]).images.shape == (6, 3, 17, 17)
    assert transform_sheet(kl, images[:1]).images.shape == (8, 3, 17, 17)
    assert transform_sheet(kl, images[:1]).columns == 4
