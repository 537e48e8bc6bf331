from collections.abc import Callable

import numpy as np
import pytest
import torch

from study.autoencoders.models import Autoencoder
from study.data.store import to_float
from study.evaluation.autoencoder import batches, decode, encode

MakeOf = Callable[..., Autoencoder]


def test_batches_are_all_images_in_order(images: np.ndarray) -> None:
    parts = list(batches(images, 5, torch.device("cpu")))
    assert [len(part) for part in parts] == [5, 5, 5, 1]
    assert torch.equal(torch.cat(parts), to_float(torch.from_numpy(images)))


def test_latents_that_are_not_finite_are_one_line(autoencoder_of: MakeOf) -> None:
    made = autoencoder_of(1, lambda x: x.log(), lambda z: z.exp())
    assert torch.equal(encode(made, torch.ones(1, 3, 4, 4), "x").mean, torch.zeros(1, 3, 4, 4))
    with pytest.raises(RuntimeError, match=r"^batch 3: a latent is not finite$"):
        encode(made, torch.zeros(1, 3, 4, 4), "batch 3")


def test_pixels_that_are_not_finite_are_one_line(autoencoder_of: MakeOf) -> None:
    made = autoencoder_of(1, lambda x: x, lambda z: 1 / z)
    assert torch.equal(decode(made, torch.ones(1, 3, 4, 4), "x"), torch.ones(1, 3, 4, 4))
    with pytest.raises(RuntimeError, match=r"^batch 3, turn_90: a decoded pixel is not finite$"):
        decode(made, torch.zeros(1, 3, 4, 4), "batch 3, turn_90")
