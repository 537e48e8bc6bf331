import math

import numpy as np
import pytest
import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder
from study.evaluation.intrinsic_dimension import two_nn
from study.evaluation.latents import (
    codebook_use,
    image_spectrum,
    intrinsic_dimensions,
    latent_spectrum,
    moments,
    standardised,
    token_counts,
)
from study.evaluation.spectrum import Spectrum


def power_of(maps: Tensor) -> Tensor:
    spectrum = Spectrum()
    spectrum.add(maps)
    return spectrum.power()


@pytest.fixture
def latents() -> Tensor:
    """Three channels of means -1, 0, 2 and standard deviations 1, 2, 0.5."""
    torch.manual_seed(0)
    scale, shift = torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.0, 2.0]]).view(2, 1, 3, 1, 1)
    return scale * torch.randn(40, 3, 8, 8) + shift


def test_moments_are_per_channel_and_their_root_mean_square(latents: Tensor) -> None:
    found = moments(latents)
    assert [found[f"latent_mean_channel_{c}"] for c in range(3)] == pytest.approx(
        [-1, 0, 2], abs=0.1
    )
    assert [found[f"latent_std_channel_{c}"] for c in range(3)] == pytest.approx(
        [1, 2, 0.5], rel=0.05
    )
    assert found["latent_std"] == pytest.approx(math.sqrt(5.25 / 3), rel=0.05)


def test_the_share_beyond_three_counts_both_signs() -> None:
    latents = torch.tensor([-3.5, -3.0, 0.0, 2.9, 3.0, 3.1, 9.0, 1.0]).view(2, 1, 2, 2)
    assert moments(latents)["latent_beyond_3"] == 3 / 8


def test_standardised_latents_have_no_mean_and_unit_variance(latents: Tensor) -> None:
    z = standardised(latents)
    assert z.mean((0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-5)
    assert z.std((0, 2, 3)).tolist() == pytest.approx([1] * 3, rel=1e-5)


def test_a_constant_channel_stays_finite() -> None:
    assert torch.equal(standardised(torch.full((4, 2, 3, 3), 5.0)), torch.zeros(4, 2, 3, 3))


def test_spectra_do_not_depend_on_batches(latents: Tensor, images: np.ndarray) -> None:
    many = latents.repeat(8, 1, 1, 1)
    torch.testing.assert_close(latent_spectrum(many).power(), power_of(latents))
    pixels = torch.from_numpy(images).double() / 127.5 - 1
    found = image_spectrum(images, 5, torch.device("cpu")).power()
    torch.testing.assert_close(found, power_of(pixels), rtol=1e-5, atol=1e-9)


def test_dimensions_are_those_of_the_first_latents(latents: Tensor) -> None:
    found = list(intrinsic_dimensions(latents, [10, 40]))
    assert [(r.metric, r.n) for r in found] == [
        ("intrinsic_dimension_10", 10),
        ("intrinsic_dimension_40", 40),
    ]
    assert found[0].value == two_nn(latents[:10].reshape(10, -1))


def test_uniform_tokens_have_the_size_of_the_codebook_as_perplexity() -> None:
    use = codebook_use(torch.full((8,), 3))
    assert use == {"codebook_use": 1, "codebook_perplexity": pytest.approx(8)}


def test_one_token_has_perplexity_one() -> None:
    use = codebook_use(torch.tensor([0, 0, 7, 0]))
    assert use == {"codebook_use": 0.25, "codebook_perplexity": pytest.approx(1)}


def test_half_and_two_quarters_have_perplexity_two_to_the_three_halves() -> None:
    use = codebook_use(torch.tensor([2, 1, 1, 0]))
    assert use == {"codebook_use": 0.75, "codebook_perplexity": pytest.approx(2**1.5)}


def test_tokens_are_counted_over_all_latents(vq: Autoencoder, images: np.ndarray) -> None:
    with torch.no_grad():
        features = vq.encode(torch.from_numpy(images).float() / 127.5 - 1).mean.repeat(20, 1, 1, 1)
    counts = token_counts(vq, features)
    tokens = vq.quantise(features).tokens
    assert counts.tolist() == [int((tokens == k).sum()) for k in range(16)]
