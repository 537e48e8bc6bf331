"""Encoding and decoding in bf16, compiled: close to fp32, whatever the size of a batch."""

import pytest
import torch

from study.autoencoders.models import Autoencoder
from study.config import Precision

IMAGES = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.inference_mode()
def errors(autoencoder: Autoencoder) -> tuple[float, float]:
    """Of latents and images in bf16, by their spread in fp32."""
    exact = autoencoder.encode(IMAGES).mean
    images = autoencoder.decode(exact)
    autoencoder.precision = Precision.bf16
    latents = autoencoder.encode(IMAGES).mean
    decoded = autoencoder.decode(exact)
    assert latents.dtype is decoded.dtype is torch.float32
    return float((latents - exact).std() / exact.std()), float((decoded - images).std())


def test_bf16_moves_latents_by_one_percent_at_most(autoencoder: Autoencoder) -> None:
    latents, _ = errors(autoencoder)
    assert 0 < latents < 0.01


def test_compiled_for_one_size_smaller_batches_are_filled(kl: Autoencoder) -> None:
    whole = kl.encode(IMAGES)
    kl.compiled = True
    kl.encode(IMAGES)
    sizes = []
    kl.model.encoder.register_forward_hook(lambda module, given, _: sizes.append(len(given[0])))
    part = kl.encode(IMAGES[:3])
    assert sizes == [8]
    assert whole.logvar is not None
    assert part.logvar is not None
    torch.testing.assert_close(part.mean, whole.mean[:3])
    torch.testing.assert_close(part.logvar, whole.logvar[:3])
    assert kl.decode(part.mean).shape == (3, 3, 16, 16)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@torch.inference_mode()
def test_compiled_code_changes_only_the_rounding(autoencoder: Autoencoder) -> None:
    exact = autoencoder.encode(IMAGES).mean
    images = autoencoder.decode(exact)
    names = list(autoencoder.state_dict())
    autoencoder.prepare(Precision.fp32, True)
    torch.testing.assert_close(autoencoder.encode(IMAGES).mean, exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(autoencoder.decode(exact), images, rtol=1e-4, atol=1e-5)
    assert list(autoencoder.state_dict()) == names
