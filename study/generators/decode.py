"""From what a generator produces to 8-bit images."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder
from study.config import LatentSpec, Scaling, StudyError
from study.data.store import to_uint8


@torch.inference_mode()
def decode_batches(
    autoencoder: Autoencoder, spec: LatentSpec, scaling: Scaling, batches: Iterable[Tensor]
) -> Iterator[Tensor]:
    """Undo the scaling and decode.

    Args:
        autoencoder: of the arm the generator was trained on.
        spec: of its latents.
        scaling: of the generator.
        batches: scaled latents B c h w, or tokens B h w.

    Yields:
        images, uint8 B 3 H W.

    Raises:
        StudyError: a latent is not finite, which no image shows.
    """
    for number, batch in enumerate(batches):
        if not bool(batch.isfinite().all()):
            raise StudyError(f"samples, micro-batch {number}: a latent is not finite")
        if spec.discrete:
            yield to_uint8(autoencoder.decode_tokens(batch))
        else:
            offset, divisor = (value.to(batch.device) for value in spec.affine(scaling))
            yield to_uint8(autoencoder.decode(batch * divisor + offset))
