"""Parameters of autoencoders, arms and their training."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from study import paths
from study.config.checks import Checked


class Family(Enum):
    """Autoencoder families: continuous Gaussian, continuous deterministic, discrete."""

    kl = "kl"
    tiny = "tiny"
    vq = "vq"


class Trainable(Enum):
    """Which part of the autoencoder an arm trains."""

    nothing = "nothing"
    decoder = "decoder"
    all = "all"


class Interpolation(Enum):
    """Resampling kernels of the spatial transform."""

    bilinear = "bilinear"
    bicubic = "bicubic"


class Reduction(Enum):
    """`sum`: a smaller image weighs less (released code); `mean`: every step weighs the same."""

    sum = "sum"
    mean = "mean"


class Precision(Enum):
    """Of network passes; weights, optimiser, losses and everything measured stay in fp32."""

    fp32 = "fp32"
    bf16 = "bf16"


class ScaleMode(Enum):
    """`none`: no resize; `isotropic`: one factor; `anisotropic`: one factor per side."""

    none = "none"
    isotropic = "isotropic"
    anisotropic = "anisotropic"


@dataclass(kw_only=True, slots=True)
class AutoencoderConfig(Checked):
    """Group `autoencoder`: weights to start from, or an architecture to train from scratch."""

    family: Family
    weights: str | None
    """Folder in diffusers format or hub id; null: trained by `pretrain_autoencoder`."""
    architecture: dict[str, Any]
    """Constructor arguments of the diffusers class when trained from scratch; else empty."""
    published_scale: float
    """Factor of scaling `fixed`; the value published with the pretrained model."""

    def __post_init__(self) -> None:
        self._rule(
            "architecture",
            bool(self.architecture) != bool(self.weights),
            "given exactly when weights is null",
        )
        self._above(0, "published_scale")

    def of_arm(self, arm: "ArmConfig") -> "AutoencoderConfig":
        """What the arm begins with: these weights or, where it has some, its own."""
        if arm.weights is None:
            return self
        assert arm.published_scale is not None  # ArmConfig requires it
        return AutoencoderConfig(
            family=self.family,
            weights=arm.weights,
            architecture={},
            published_scale=arm.published_scale,
        )

    def weights_source(self) -> Path | str | None:
        """Where weights come from: a folder below `weights/`, a hub id, or (None) pre-training."""
        if self.weights is not None and self.weights.startswith("weights/"):
            return paths.ROOT / self.weights
        return self.weights


@dataclass(kw_only=True, slots=True)
class ArmConfig(Checked):
    """Group `arm`: what distinguishes the fine-tuned autoencoders (paper Eq. 5 to 7)."""

    trainable: Trainable
    equivariance_probability: float
    """Probability of a transformed step (1 - p_alpha in the paper's notation)."""
    low_resolution_probability: float
    """Probability of an untransformed step on a down-scaled image; absolute, not of the rest."""
    scale: ScaleMode
    rotation: bool
    """Draw one of three non-zero quarter turns; false: none."""
    interpolation: Interpolation
    antialias: bool
    reduction: Reduction
    explicit_weight: float
    """Weight of the mean of (tau E(x) - E(tau x))^2 beside the plain losses (paper Eq. 4)."""
    explicit_stop_gradient: bool
    """Take E(tau x) as a constant in that term."""
    downscaled_weight: float
    """Weight of reconstructing a down-scaled image from down-scaled latents, beside the plain
    reconstruction (Skorokhodov et al., 2502.14831)."""
    after_quantisation: bool
    """Family vq: tau acts on codebook entries, which are decoded as they come out."""
    weights: str | None = None
    """Folder below `weights/` of an autoencoder that others have fine-tuned, taken as it is in the
    place of the one that arms start from; the arms of this study have none."""
    published_scale: float | None = None
    """Factor of scaling `fixed` that is published with these weights."""

    def __post_init__(self) -> None:
        adopted = self.weights is not None
        self._rule(
            "weights",
            not adopted or (self.weights or "").startswith("weights/"),
            "a folder below weights/",
        )
        self._rule(
            "trainable",
            not adopted or self.trainable is Trainable.nothing,
            "nothing where weights are given",
        )
        self._rule(
            "published_scale",
            (self.published_scale is not None) == adopted,
            "given exactly where weights are",
        )
        if adopted:
            self._above(0, "published_scale")
        self._within(0, 1, "equivariance_probability", "low_resolution_probability")
        self._at_least(0, "explicit_weight", "downscaled_weight")
        total = self.equivariance_probability + self.low_resolution_probability
        self._rule("low_resolution_probability", total <= 1, "at most 1 - equivariance_probability")
        moves = self.rotation or self.scale is not ScaleMode.none
        self._rule(
            "equivariance_probability",
            moves or self.equivariance_probability == 0,
            "0 where neither scale nor rotation is on",
        )
        self._rule(
            "explicit_weight",
            moves or self.explicit_weight == 0,
            "0 where neither scale nor rotation is on",
        )
        self._rule(
            "explicit_stop_gradient",
            self.explicit_weight > 0 or not self.explicit_stop_gradient,
            "false where explicit_weight is 0",
        )


@dataclass(kw_only=True, slots=True)
class AutoencoderTrainingConfig(Checked):
    """Sections `pretrain_autoencoder` and `finetune_autoencoder` (losses: paper Eq. 1)."""

    steps: int
    batch_size: int
    precision: Precision
    compile: bool
    """Compile encoder, decoder, perceptual network and discriminator; needs a C++ compiler on a
    CPU."""
    learning_rate: float
    """Peak; decays to zero as a squared half cosine."""
    lpips: str | None
    """File of torchvision's VGG16 weights for LPIPS; null: the in-domain perceptual network."""
    perceptual_weight: float
    """Weight of the perceptual distance beside L1."""
    kl_weight: float
    """Weight of the KL term, summed over latent dimensions (released code: 1e-6)."""
    commitment_weight: float
    """VQ: weight of the commitment term relative to the codebook term."""
    adversarial_weight: float
    """Factor on the adaptive generator weight of the hinge PatchGAN; 0: no discriminator."""
    adversarial_start: int
    """Step from which the adversarial term acts."""
    discriminator_width: int
    """Channels of the discriminator's first layer (released code: 64)."""
    codebook_start: int
    """VQ: steps without quantisation, after which the codebook is drawn from the features."""
    transformed_quantisation_loss: bool
    """VQ: codebook and commitment terms on the transformed code too (mean of both)."""
    separate_draws: bool
    """The discriminator's step draws its own branch and transform (released code)."""
    monitor_images: int
    """Held-out images, from the first, whose reconstruction and equivariance are followed."""
    monitor_points: int
    """How often, evenly over the steps."""

    def __post_init__(self) -> None:
        self._at_least(1, "steps", "batch_size", "discriminator_width", "monitor_points")
        self._at_least(2, "monitor_images")
        self._above(0, "learning_rate")
        self._at_least(
            0,
            "perceptual_weight",
            "kl_weight",
            "commitment_weight",
            "adversarial_weight",
            "adversarial_start",
            "codebook_start",
        )
        self._rule("codebook_start", self.codebook_start < self.steps, "less than steps")


@dataclass(kw_only=True, slots=True)
class CacheLatentsConfig(Checked):
    """Section `cache_latents`."""

    batch_size: int
    shard_images: int
    """Images per shard file, which several processes take in turn."""
    precision: Precision
    compile: bool
    """Compile the encoder."""

    def __post_init__(self) -> None:
        self._at_least(1, "batch_size", "shard_images")
