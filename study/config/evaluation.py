"""Parameters of the measurements."""

from dataclasses import dataclass
from enum import Enum

from study.config.checks import Checked


class Extractor(Enum):
    """Feature extractors for distances."""

    in_domain = "in_domain"
    inception = "inception"


class SamplingMethod(Enum):
    """Samplers: of DiT, of SiT and REPA (ODE, ODE, SDE), of MaskGIT."""

    ddpm = "ddpm"
    ddim = "ddim"
    euler = "euler"
    heun = "heun"
    euler_maruyama = "euler_maruyama"
    confidence = "confidence"


@dataclass(kw_only=True, slots=True)
class SamplerConfig(Checked):
    """Group `sampler`: how samples are drawn."""

    method: SamplingMethod
    cfg_scale: float
    """Classifier-free guidance; 1: none."""
    last_step: float | None
    """euler_maruyama: size of the last, noise-free step (published 0.04); else null."""
    temperature: float | None
    """confidence: Gumbel noise, annealed to zero (published 4.5); else null."""

    def __post_init__(self) -> None:
        self._at_least(1, "cfg_scale")
        sde, tokens = SamplingMethod.euler_maruyama, SamplingMethod.confidence
        self._rule(
            "last_step",
            (self.last_step is not None) == (self.method is sde),
            "given exactly for euler_maruyama",
        )
        self._rule(
            "temperature",
            (self.temperature is not None) == (self.method is tokens),
            "given exactly for confidence",
        )
        if self.last_step is not None:
            self._rule("last_step", 0 < self.last_step < 1, "between 0 and 1")
        if self.temperature is not None:
            self._at_least(0, "temperature")


@dataclass(kw_only=True, slots=True)
class EvaluationConfig(Checked):
    """Group `evaluation`: what measures distances between image sets."""

    extractor: Extractor
    weights: str | None
    """inception: file of torch-fidelity's Inception weights."""
    lpips: str | None
    """File of torchvision's VGG16 weights below weights/, for LPIPS; null: perceptual distance in
    the in-domain extractor."""
    kid_subset_size: int
    bootstrap_samples: int
    """Resamples for the standard error of a distance over samples."""
    allow_few_samples: bool
    """Allow n below twice the feature dimension (the distance is then dominated by bias)."""

    def __post_init__(self) -> None:
        self._at_least(2, "kid_subset_size", "bootstrap_samples")
        if self.extractor is Extractor.inception:
            self._rule("weights", bool(self.weights), "a file for extractor inception")


@dataclass(kw_only=True, slots=True)
class ReferenceStatisticsConfig(Checked):
    """Section `reference_statistics`."""

    batch_size: int

    def __post_init__(self) -> None:
        self._at_least(1, "batch_size")


@dataclass(kw_only=True, slots=True)
class EvaluateAutoencoderConfig(Checked):
    """Section `evaluate_autoencoder`."""

    num_images: int
    """Held-out images, from the first."""
    batch_size: int
    scales: list[float]
    """Scales of the equivariance error (paper App. C.3: 0.25, 0.5, 0.75)."""
    intrinsic_dimension_images: list[int]
    """Numbers of images, from the first, whose latents' intrinsic dimension is estimated."""

    def __post_init__(self) -> None:
        self._at_least(2, "num_images")
        self._at_least(1, "batch_size")
        for name in ("scales", "intrinsic_dimension_images"):
            values = getattr(self, name)
            self._rule(name, len(set(values)) == len(values), "a list without repetitions")
        self._rule("scales", all(0 < s < 1 for s in self.scales), "a list of numbers in (0, 1)")
        self._rule(
            "intrinsic_dimension_images",
            all(10 <= n <= self.num_images for n in self.intrinsic_dimension_images),
            f"a list of whole numbers from 10 to num_images {self.num_images}",
        )


@dataclass(kw_only=True, slots=True)
class EvaluateGeneratorConfig(Checked):
    """Section `evaluate_generator`."""

    num_samples: int
    num_steps: int
    """Sampler steps of the continuous generators."""
    num_token_steps: int
    """Unmasking steps of MaskGIT."""
    micro_batch_size: int
    grid_images: int
    """Samples shown per generator and arm."""

    def __post_init__(self) -> None:
        self._at_least(2, "num_samples")
        self._at_least(1, "num_steps", "num_token_steps", "micro_batch_size")
        self._rule(
            "grid_images", 1 <= self.grid_images <= self.num_samples, "from 1 to num_samples"
        )
