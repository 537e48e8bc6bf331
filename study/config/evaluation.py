"""Parameters of the measurements."""

from dataclasses import dataclass
from enum import Enum

from study.config.autoencoder import Precision
from study.config.checks import Checked


class Extractor(Enum):
    """Feature extractors for distances."""

    in_domain = "in_domain"
    inception = "inception"


class SamplingMethod(Enum):
    """Samplers: two of DiT, four of SiT and REPA (ODE three times, SDE), two of MaskGIT."""

    ddpm = "ddpm"
    ddim = "ddim"
    euler = "euler"
    heun = "heun"
    dopri5 = "dopri5"
    euler_maruyama = "euler_maruyama"
    confidence = "confidence"
    halton = "halton"


class Weights(Enum):
    """Which weights of a checkpoint are sampled."""

    ema = "ema"
    raw = "raw"


@dataclass(kw_only=True, slots=True)
class SamplerConfig(Checked):
    """Group `sampler`: how samples are drawn."""

    method: SamplingMethod
    weights: Weights
    cfg_scale: float
    """Classifier-free guidance; 1: none."""
    cfg_interval: list[float]
    """First and last t at which guidance acts; t = 0: data, 1: noise. For DiT the share of its
    steps, for tokens the share that is masked."""
    cfg_channels: int | None
    """Guide the first channels only (released code of DiT and SiT: 3); null: all."""
    last_step: float | None
    """euler_maruyama: size of the last, noise-free step (published 0.04); else null."""
    rtol: float | None
    """dopri5: relative tolerance of a sample (published 1e-3); else null."""
    atol: float | None
    """dopri5: absolute tolerance of a sample (published 1e-6); else null."""
    temperature: float | None
    """confidence: Gumbel noise, annealed to zero (published 4.5); halton: of the softmax; else
    null."""

    def __post_init__(self) -> None:
        self._at_least(1, "cfg_scale")
        method = SamplingMethod
        tokens = (method.confidence, method.halton)
        self._given_for("last_step", method.euler_maruyama)
        self._given_for("rtol", method.dopri5)
        self._given_for("atol", method.dopri5)
        self._given_for("temperature", *tokens)
        ends = self.cfg_interval
        inside = len(ends) == 2 and 0 <= ends[0] < ends[1] <= 1
        self._rule("cfg_interval", inside, "two numbers from 0 to 1, ascending")
        if self.cfg_channels is not None:
            self._at_least(1, "cfg_channels")
            self._rule("cfg_channels", self.method not in tokens, "null for tokens")
        if self.last_step is not None:
            self._rule("last_step", 0 < self.last_step < 1, "between 0 and 1")
        if self.rtol is not None:
            self._above(0, "rtol", "atol")
        if self.temperature is not None:
            self._at_least(0, "temperature")
            if self.method is method.halton:
                self._above(0, "temperature")

    def _given_for(self, name: str, *methods: SamplingMethod) -> None:
        names = " and ".join(method.value for method in methods)
        given = getattr(self, name) is not None
        self._rule(name, given == (self.method in methods), f"given exactly for {names}")


@dataclass(kw_only=True, slots=True)
class EvaluationConfig(Checked):
    """Group `evaluation`: what measures distances between image sets."""

    extractor: Extractor
    weights: str | None
    """inception: file of torch-fidelity's Inception weights."""
    lpips: str | None
    """File of torchvision's VGG16 weights below weights/, for LPIPS; null: perceptual distance in
    the in-domain extractor."""
    adm_reference: str | None
    """inception: ADM's reference batch (.npz with mu, sigma, mu_s, sigma_s) that distances are to,
    below weights/; null: the study's training images."""
    kid_subset_size: int
    allow_few_samples: bool
    """Allow n below twice the feature dimension (the distance is then dominated by bias)."""

    def __post_init__(self) -> None:
        self._at_least(2, "kid_subset_size")
        if self.extractor is Extractor.inception:
            self._rule("weights", bool(self.weights), "a file for extractor inception")
        else:
            self._rule("adm_reference", self.adm_reference is None, "null without inception")


@dataclass(kw_only=True, slots=True)
class ReferenceStatisticsConfig(Checked):
    """Section `reference_statistics`."""

    batch_size: int
    degraded_images: int
    """Held-out images, from the first, that are blurred, made noisy and compressed to see whether
    the distance rises; nothing of this where few samples are allowed."""

    def __post_init__(self) -> None:
        self._at_least(1, "batch_size")
        self._at_least(2, "degraded_images")


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
    """Sampler steps of the continuous generators; dopri5 chooses its own."""
    num_token_steps: int
    """Unmasking steps of MaskGIT."""
    micro_batch_size: int
    grid_images: int
    """Samples shown per generator and arm."""
    reconstructions: int
    """Training images whose reconstructions by the arm's own autoencoder are a second reference."""
    nearest_samples: int
    """Samples of a checkpoint, from the first, whose nearest training image is searched."""
    precision: Precision
    """Of the generator and of decoding its samples."""
    compile: bool
    """Compile generator and decoder for sampling."""

    def __post_init__(self) -> None:
        self._at_least(2, "num_samples", "reconstructions")
        self._at_least(1, "num_steps", "num_token_steps", "micro_batch_size")
        self._rule(
            "grid_images", 1 <= self.grid_images <= self.num_samples, "from 1 to num_samples"
        )
        self._rule(
            "nearest_samples",
            1 <= self.nearest_samples <= self.num_samples,
            "from 1 to num_samples",
        )
