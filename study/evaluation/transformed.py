"""What an autoencoder does under the transforms: tau E(x) against E(tau x), D(tau E(x)) and tau x.

Transforms are the quarter turns and isotropic scales [EQ-VAE 2502.09509v3, App. C.3]. What the
paper leaves open is measured side by side: mean and sampled latents, and four ways to resample. The
rule is mean latents, bilinear without antialias, as the released code transforms; a metric of
another variant has its name as suffix.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from study.autoencoders.models import Autoencoder, Posterior
from study.config import Interpolation
from study.equivariance import EquivarianceError, Transform
from study.evaluation.autoencoder import decode, encode
from study.evaluation.comparison import Comparison, Judges
from study.evaluation.result import Result

QUARTER_TURNS = (1, 2, 3)
GROUPS = {"turn": "rotation", "scale": "scale"}
"""What a transform's name begins with, and what the mean over such transforms is called."""
RESAMPLINGS = {
    "": (Interpolation.bilinear, False),
    "bicubic": (Interpolation.bicubic, False),
    "antialiased": (Interpolation.bilinear, True),
    "bicubic_antialiased": (Interpolation.bicubic, True),
}
"""Kernel and antialias of each variant; the first is the rule."""
SAMPLED = "sampled"


def turn(side: int, quarter_turns: int) -> Transform:
    """A turn of latents of a side."""
    return Transform(side, side, quarter_turns, Interpolation.bilinear, antialias=False)


def scaling(side: int, scale: float, variant: str = "") -> Transform:
    """An isotropic scale of latents of a side, rounded to whole sides, resampled as a variant."""
    new = max(1, round(scale * side))
    return Transform(new, new, 0, *RESAMPLINGS[variant])


def transforms(side: int, scales: list[float]) -> dict[tuple[str, str], Transform]:
    """Transforms by name (turn_90, scale_0.5) and variant; turns do not resample."""
    found = {(f"turn_{90 * turns}", ""): turn(side, turns) for turns in QUARTER_TURNS}
    for variant in RESAMPLINGS:
        found |= {(f"scale_{s:g}", variant): scaling(side, s, variant) for s in scales}
    return found


def with_means(metric: str, values: dict[str, float], variant: str = "") -> dict[str, float]:
    """Metrics `<metric>_<transform>_<variant>` of values by transform, and means over groups."""
    suffix = _suffix(variant)
    found = {f"{metric}_{name}{suffix}": value for name, value in values.items()}
    for kind, group in GROUPS.items():
        inside = [value for name, value in values.items() if name.startswith(kind)]
        if inside:
            found[f"{metric}_{group}{suffix}"] = fmean(inside)
    return found


@dataclass(slots=True)
class Agreement:
    """Tokens of tau E(x) against those of E(tau x)."""

    same: Tensor | float = 0.0
    count: int = 0

    def add(self, ours: Tensor, theirs: Tensor) -> None:
        """Add the tokens of a batch, both B h w."""
        self.same = self.same + (ours == theirs).sum()
        self.count += ours.numel()

    def share(self) -> float:
        """Share of positions with the same token."""
        return float(self.same) / self.count


class UnderTransforms:
    """Accumulates, batch by batch, everything that is measured under transforms.

    Each transformed batch is made and encoded once, whatever is measured with it.
    """

    def __init__(self, autoencoder: Autoencoder, judges: Judges, side: int, scales: list[float]):
        """Begin with no images; `side` is that of the latents."""
        self.autoencoder = autoencoder
        self.transforms = transforms(side, scales)
        self.errors = {key: EquivarianceError() for key in self.transforms}
        plain = [name for name, variant in self.transforms if not variant]
        self.sampled = {name: EquivarianceError() for name in plain}
        self.agreement = {name: Agreement() for name in plain}
        self.decoded = {name: Comparison(judges) for name in plain}

    def add(
        self, images: Tensor, posterior: Posterior, numbers: torch.Generator, what: str
    ) -> None:
        """Add a batch.

        Args:
            images: in [-1, 1], B 3 H W.
            posterior: of these images.
            numbers: CPU generator of the samples of posteriors.
            what: names the batch in an error.
        """
        factor = self.autoencoder.factor
        sample = _sample(posterior, numbers)
        for (name, variant), transform in self.transforms.items():
            here = f"{what}, {name}{_suffix(variant)}"
            moved = transform.on_images(images, factor)
            theirs = encode(self.autoencoder, moved, here)
            ours = transform.on_latents(posterior.mean)
            self.errors[name, variant].add(ours, theirs.mean)
            if variant:
                continue
            other = _sample(theirs, numbers)
            if sample is not None and other is not None:
                self.sampled[name].add(transform.on_latents(sample), other)
            if self.autoencoder.discrete:
                tokens = (self.autoencoder.quantise(z).tokens for z in (ours, theirs.mean))
                self.agreement[name].add(*tokens)
            self.decoded[name].add(decode(self.autoencoder, ours, here), moved)

    def parts(self) -> dict[str, EquivarianceError | Agreement | Comparison]:
        """Everything that grows with a batch, by name."""
        groups = (self.sampled, self.agreement, self.decoded)
        errors = {f"{name} {variant}": each for (name, variant), each in self.errors.items()}
        named = ((f"{n} {name}", p) for n, group in enumerate(groups) for name, p in group.items())
        return {**errors, **dict(named)}

    def results(self) -> Iterator[Result]:
        """Every metric, with the means over turns and over scales."""
        n = next(iter(self.errors.values())).images
        for metric, value in self._errors().items():
            yield Result(metric, value, n)
        if self.autoencoder.discrete:
            shares = {name: each.share() for name, each in self.agreement.items()}
            for metric, value in with_means("token_agreement", shares).items():
                yield Result(metric, value, n)
        found: dict[str, dict[str, Result]] = {}
        for name, comparison in self.decoded.items():
            for result in comparison.results():
                found.setdefault(result.metric, {})[name] = result
        for metric, results in found.items():
            values = {name: result.value for name, result in results.items()}
            extractor = next(iter(results.values())).extractor
            for full, value in with_means(f"transformed_{metric}", values).items():
                yield Result(full, value, n, extractor)

    def _errors(self) -> dict[str, float]:
        variants: dict[str, dict[str, EquivarianceError]] = {}
        for (name, variant), error in self.errors.items():
            variants.setdefault(variant, {})[name] = error
        if any(error.images for error in self.sampled.values()):
            variants[SAMPLED] = self.sampled
        found = {}
        for variant, errors in variants.items():
            forms = {
                "equivariance_error": {k: e.variance_form() for k, e in errors.items()},
                "equivariance_error_paper": {k: e.paper_form() for k, e in errors.items()},
                "equivariance_error_channels": {k: e.channel_form() for k, e in errors.items()},
            }
            for metric, values in forms.items():
                found |= with_means(metric, values, variant)
        rule = [self.errors[name, ""].variance_form() for name in self.sampled]
        found["equivariance_error"] = fmean(rule)
        # Where the latents do not vary there is nothing that an error could be relative to.
        return {metric: value for metric, value in found.items() if math.isfinite(value)}


def _suffix(variant: str) -> str:
    return f"_{variant}" if variant else ""


def _sample(posterior: Posterior, numbers: torch.Generator) -> Tensor | None:
    """A sample of a Gaussian posterior; None for a deterministic encoder."""
    if posterior.logvar is None:
        return None
    noise = torch.randn(posterior.mean.shape, generator=numbers)
    return posterior.sample(noise.to(posterior.mean.device))
