from collections.abc import Callable

import numpy as np
import pytest
import torch

from study.autoencoders.models import Autoencoder
from study.config import StudyError
from study.data.store import to_float
from study.evaluation.autoencoder import batches, decode, encode, reconstructions

MakeOf = Callable[..., Autoencoder]


def test_batches_are_all_images_in_order(images: np.ndarray) -> None:
    parts = list(batches(images, 5, torch.device("cpu")))
    assert [len(part) for part in parts] == [5, 5, 5, 1]
    assert torch.equal(torch.cat(parts), to_float(torch.from_numpy(images)))


def test_latents_that_are_not_finite_are_one_line(autoencoder_of: MakeOf) -> None:
    made = autoencoder_of(1, lambda x: x.log(), lambda z: z.exp())
    assert torch.equal(encode(made, torch.ones(1, 3, 4, 4), "x").mean, torch.zeros(1, 3, 4, 4))
    with pytest.raises(StudyError, match=r"^batch 3: a latent is not finite$"):
        encode(made, torch.zeros(1, 3, 4, 4), "batch 3")


def test_pixels_that_are_not_finite_are_one_line(autoencoder_of: MakeOf) -> None:
    made = autoencoder_of(1, lambda x: x, lambda z: 1 / z)
    assert torch.equal(decode(made, torch.ones(1, 3, 4, 4), "x"), torch.ones(1, 3, 4, 4))
    with pytest.raises(StudyError, match=r"^batch 3, turn_90: a decoded pixel is not finite$"):
        decode(made, torch.zeros(1, 3, 4, 4), "batch 3, turn_90")


def test_reconstructions_are_spread_over_the_images_and_half_are_mirrored(
    identity: Autoencoder, images: np.ndarray
) -> None:
    found = torch.cat(list(reconstructions(identity, images, 8, 3, 0))).numpy()
    chosen = images[np.linspace(0, 15, 8).round().astype(int)]
    mirrored = [
        np.array_equal(ours, theirs[..., ::-1]) for ours, theirs in zip(found, chosen, strict=True)
    ]
    same = [np.array_equal(ours, theirs) for ours, theirs in zip(found, chosen, strict=True)]
    assert found.dtype == np.uint8
    assert all(one != other for one, other in zip(same, mirrored, strict=True))
    assert 0 < sum(mirrored) < 8


def test_reconstructions_do_not_depend_on_the_batch_size_and_end_with_the_images(
    kl: Autoencoder, images: np.ndarray
) -> None:
    whole = torch.cat(list(reconstructions(kl, images, 99, 16, 0)))
    assert len(whole) == 16
    again = torch.cat(list(reconstructions(kl, images, 99, 16, 0)))
    other = torch.cat(list(reconstructions(kl, images, 99, 16, 1)))
    parts = torch.cat(list(reconstructions(kl, images, 99, 5, 0)))
    assert torch.equal(whole, again)
    assert not torch.equal(whole, other)
    assert (parts.float() - whole.float()).abs().max() <= 1
