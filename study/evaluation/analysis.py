"""Everything that is measured of one autoencoder, in one pass over the images."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder
from study.config import EvaluateAutoencoderConfig
from study.config.seeds import derive
from study.data.store import to_uint8
from study.evaluation.autoencoder import batches, decode, device_of, encode
from study.evaluation.comparison import Comparison, Judges
from study.evaluation.extensions import measures
from study.evaluation.latents import (
    codebook_use,
    image_spectrum,
    intrinsic_dimensions,
    latent_spectrum,
    moments,
    standardised,
    token_counts,
)
from study.evaluation.passes import packed, restore_sums, sums, unpacked
from study.evaluation.pictures import Sheet, latent_sheet, transform_sheet
from study.evaluation.result import Result
from study.evaluation.spectrum import Spectrum
from study.evaluation.transformed import UnderTransforms, scaling
from study.keeper import Keeper

SHOWN = 12
"""Images in the picture of reconstructions."""
SMALLEST_SIDE = 4
"""Of latents with a spectrum."""
SPECTRUM = ("set", "frequency", "power")
"""Columns of the spectra; frequency in cycles per sample."""


@dataclass(slots=True)
class Analysis:
    """What was found out about an autoencoder."""

    results: list[Result]
    """Each metric once."""
    spectra: dict[str, Spectrum]
    """Of `latent` and `image`; neither where the latents' side is below 4."""
    reconstructions: Sheet
    """Images, and below them the same encoded and decoded."""
    latents: Sheet
    """See `latent_sheet`."""
    transforms: Sheet
    """See `transform_sheet`."""
    protocol: dict[str, str]
    """How the numbers were made."""

    def spectrum_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of a table with columns `SPECTRUM`: set is latents or images."""
        for name, spectrum in self.spectra.items():
            points = zip(spectrum.frequency.tolist(), spectrum.power().tolist(), strict=True)
            for frequency, power in points:
                row = (f"{name}s", frequency, power)
                yield dict(zip(SPECTRUM, row, strict=True))


@torch.inference_mode()
def analyse(
    autoencoder: Autoencoder,
    images: np.ndarray,
    settings: EvaluateAutoencoderConfig,
    judges: Judges | None = None,
    seed: int = 0,
    keeper: Keeper | None = None,
) -> Analysis:
    """Measure reconstruction, latents and equivariance on the first `settings.num_images` images.

    Args:
        autoencoder: in eval mode, on the device that is to be used.
        images: uint8 N 3 H W.
        settings: number of images, batch size, scales, sizes of the intrinsic dimension.
        judges: trained networks that measure; what needs a missing one is left out.
        seed: of the sampled latents; the same noise for every autoencoder of equal latents.
        keeper: keeps the sums on the way, and has those of an earlier start; None: nothing kept.

    Raises:
        ConfigError: the images do not fit the autoencoder's factor.
        StudyError: a latent, pixel or feature is not finite, or nothing varies.
    """
    judges = judges or Judges()
    images = images[: settings.num_images]
    side, device = autoencoder.latent_side(images), device_of(autoencoder)
    with_reference = judges if judges.reference else replace(judges, extractor=None)
    reconstruction = Comparison(with_reference, judges.reference, with_ssim=True)
    transformed = UnderTransforms(autoencoder, judges, side, settings.scales)
    means, shown, first, keeper = [], [], 0, keeper or Keeper()
    parts = {"reconstruction": reconstruction, **transformed.parts()}
    if kept := keeper.restore():
        means, shown = unpacked(kept["means"], device), unpacked(kept["shown"])
        first = kept["batches"]
        for name, part in parts.items():
            restore_sums(part, kept[name], device)
    left = images[first * settings.batch_size :]
    for index, batch in enumerate(batches(left, settings.batch_size, device), first):
        if keeper.due:
            own = {"batches": index, "means": means, "shown": packed(shown)}
            keeper.save({**own, **{name: sums(part) for name, part in parts.items()}})
        here = f"batch {index}"
        posterior = encode(autoencoder, batch, here)
        decoded = decode(autoencoder, posterior.mean, here)
        reconstruction.add(decoded, batch)
        numbers = torch.Generator().manual_seed(derive(seed, "evaluate_autoencoder", index))
        transformed.add(batch, posterior, numbers, here)
        means.append(posterior.mean)
        if sum(map(len, shown)) < SHOWN:
            shown.append(to_uint8(decoded[:SHOWN]).cpu().numpy())
    latents = torch.cat(means)
    pair = np.array(images[:SHOWN]), np.concatenate(shown)[:SHOWN]

    values = moments(latents)
    if autoencoder.discrete:
        values |= codebook_use(token_counts(autoencoder, latents))
    latents = standardised(latents)
    values |= measures(latents)
    spectra = _spectra(latents, images, settings.batch_size)
    for name, spectrum in spectra.items():
        values[f"{name}_spectral_slope"] = spectrum.slope()
        values[f"{name}_high_frequency_share"] = spectrum.high_frequency_share()
    found = [*reconstruction.results(), *transformed.results()]
    found += [Result(metric, value, len(images)) for metric, value in values.items()]
    found += intrinsic_dimensions(latents, settings.intrinsic_dimension_images)
    return Analysis(
        results=found,
        spectra=spectra,
        reconstructions=Sheet(np.concatenate(pair), len(pair[0])),
        latents=latent_sheet(autoencoder, images),
        transforms=transform_sheet(autoencoder, images),
        protocol=_protocol(side, settings, judges),
    )


def _spectra(latents: Tensor, images: np.ndarray, batch_size: int) -> dict[str, Spectrum]:
    if latents.shape[-1] < SMALLEST_SIDE:
        return {}
    of_images = image_spectrum(images, batch_size, latents.device)
    return {"latent": latent_spectrum(latents), "image": of_images}


def _protocol(side: int, settings: EvaluateAutoencoderConfig, judges: Judges) -> dict[str, str]:
    sides = (f"{s:g} ({scaling(side, s).height} of {side})" for s in settings.scales)
    return {
        "latents": "mean of the posterior (vq: features before quantisation)",
        "transforms": "bilinear, no antialias, unless a variant says otherwise",
        "scales": f"{', '.join(sides)} latent positions a side",
        "variant sampled": "tau of a sample of E(x) against another sample of E(tau x)",
        "variant antialiased": "images and latents alike",
        "transformed": "8-bit images of tau E(x) decoded, against those of tau x",
        "extractor": judges.extractor.name if judges.extractor else "none",
        "perceptual distance": judges.perceptual[0] if judges.perceptual else "none",
    }
