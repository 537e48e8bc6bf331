import pytest
import torch

from study.autoencoders.models import Autoencoder
from study.config import LatentSpec, Scaling, StudyError
from study.data.store import to_uint8
from study.generators.decode import decode_batches


@pytest.mark.parametrize("scaling", list(Scaling))
def test_decoding_undoes_the_scaling(kl: Autoencoder, spec: LatentSpec, scaling: Scaling) -> None:
    latents = torch.randn(5, 4, 8, 8)
    offset, divisor = spec.affine(scaling)
    batches = ((latents - offset) / divisor).split(2)
    decoded = torch.cat(list(decode_batches(kl, spec, scaling, batches)))
    expected = to_uint8(kl.decode(latents))
    assert decoded.dtype == torch.uint8
    assert (decoded.int() - expected.int()).abs().max() <= 1


def test_scalings_differ(kl: Autoencoder, spec: LatentSpec) -> None:
    batches = [torch.randn(2, 4, 8, 8)]
    ours, theirs = (next(decode_batches(kl, spec, scaling, batches)) for scaling in Scaling)
    assert not torch.equal(ours, theirs)


def test_tokens_are_decoded_as_codebook_entries(vq: Autoencoder, token_spec: LatentSpec) -> None:
    tokens = torch.randint(16, (3, 8, 8))
    (decoded,) = decode_batches(vq, token_spec, Scaling.standardised, [tokens])
    assert torch.equal(decoded, to_uint8(vq.decode_tokens(tokens)))


def test_latents_that_are_not_finite_are_refused(kl: Autoencoder, spec: LatentSpec) -> None:
    batches = [torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)]
    batches[1][1, 0, 0, 0] = torch.nan
    with pytest.raises(StudyError, match=r"^samples, micro-batch 1: a latent is not finite$"):
        list(decode_batches(kl, spec, Scaling.standardised, batches))
