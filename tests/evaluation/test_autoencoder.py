from collections.abc import Callable

import numpy as np
import pytest
import torch

from study.autoencoders.models import Autoencoder
from study.config import ConfigError
from study.data.store import to_float
from study.evaluation.autoencoder import batches, decode, encode, latent_side

MakeToy = Callable[..., Autoencoder]


def test_batches_are_all_images_in_order(images: np.ndarray) -> None:
    parts = list(batches(images, 5, torch.device("cpu")))
    assert [len(part) for part in parts] == [5, 5, 5, 1]
    assert torch.equal(torch.cat(parts), to_float(torch.from_numpy(images)))


def test_latents_have_the_side_over_the_factor(pooling: Autoencoder, images: np.ndarray) -> None:
    assert latent_side(pooling, images) == 8


@pytest.mark.parametrize(("height", "width"), [(15, 15), (16, 18)])
def test_images_that_the_factor_does_not_divide_are_refused(
    pooling: Autoencoder, height: int, width: int
) -> None:
    images = np.zeros((2, 3, height, width), dtype=np.uint8)
    rule = f"images of {height} x {width} pixels: must be square, .* multiple .* factor 2$"
    with pytest.raises(ConfigError, match=rule):
        latent_side(pooling, images)


def test_latents_that_are_not_finite_are_one_line(make_toy: MakeToy) -> None:
    toy = make_toy(1, lambda x: x.log(), lambda z: z.exp())
    assert torch.equal(encode(toy, torch.ones(1, 3, 4, 4), "x").mean, torch.zeros(1, 3, 4, 4))
    with pytest.raises(RuntimeError, match=r"^batch 3: a latent is not finite$"):
        encode(toy, torch.zeros(1, 3, 4, 4), "batch 3")


def test_pixels_that_are_not_finite_are_one_line(make_toy: MakeToy) -> None:
    toy = make_toy(1, lambda x: x, lambda z: 1 / z)
    assert torch.equal(decode(toy, torch.ones(1, 3, 4, 4), "x"), torch.ones(1, 3, 4, 4))
    with pytest.raises(RuntimeError, match=r"^batch 3, turn_90: a decoded pixel is not finite$"):
        decode(toy, torch.zeros(1, 3, 4, 4), "batch 3, turn_90")
