"""Parameters of generators, their backbone and their training."""

from dataclasses import dataclass
from enum import Enum

from study.config.autoencoder import Precision
from study.config.checks import Checked


class Objective(Enum):
    """Generator objectives."""

    dit = "dit"
    sit = "sit"
    repa = "repa"
    maskgit = "maskgit"


class AlignmentTarget(Enum):
    """Frozen encoders that REPA aligns with: the study's own network, or DINOv2 by its size."""

    in_domain = "in_domain"
    dinov2_small = "dinov2_small"
    dinov2_base = "dinov2_base"
    dinov2_large = "dinov2_large"
    dinov2_giant = "dinov2_giant"


class Scaling(Enum):
    """How a generator's latents are scaled: per-channel moments, or the published factor."""

    standardised = "standardised"
    fixed = "fixed"


@dataclass(kw_only=True, slots=True)
class BackboneConfig(Checked):
    """Group `backbone`: the transformer, by the field's size names."""

    width: int
    depth: int
    heads: int
    patch_size: int
    mlp_ratio: float
    projection_depth: int
    """REPA: block after which hidden tokens are projected (published 8; deviation 22)."""
    projection_width: int
    """REPA: width of the projection MLP (published 2048)."""

    def __post_init__(self) -> None:
        self._at_least(1, "depth", "heads", "patch_size", "projection_depth", "projection_width")
        self._above(0, "mlp_ratio")
        rule = f"at most depth {self.depth}"
        self._rule("projection_depth", self.projection_depth <= self.depth, rule)
        self._rule("width", self.width % (4 * self.heads) == 0, "a multiple of 4 times heads")


@dataclass(kw_only=True, slots=True)
class DiTConfig(Checked):
    """Group `generator`: DiT, discrete-time diffusion with learned variance (2212.09748)."""

    objective: Objective
    num_timesteps: int
    beta_start: float
    beta_end: float

    def __post_init__(self) -> None:
        self._at_least(2, "num_timesteps")
        self._above(0, "beta_start")
        self._rule("beta_end", self.beta_start <= self.beta_end < 1, "from beta_start to below 1")


@dataclass(kw_only=True, slots=True)
class SiTConfig(Checked):
    """Group `generator`: SiT, interpolant with velocity prediction (2401.08740)."""

    objective: Objective
    path: str
    """linear or gvp."""
    time_shift: float
    """Factor s by which times of training and of the samplers' steps move towards noise, as if the
    latents were divided by it: s t / (1 + (s - 1) t) [2403.03206, Eq. 23]; published 1."""
    learning_rate_factor: float
    """Times the profile's rate; 1 but for a control."""
    steps_factor: int
    """Times the profile's steps; 1 but for a control."""

    def __post_init__(self) -> None:
        self._rule("path", self.path in ("linear", "gvp"), "linear or gvp")
        self._above(0, "time_shift", "learning_rate_factor")
        self._at_least(1, "steps_factor")


@dataclass(kw_only=True, slots=True)
class REPAConfig(SiTConfig):
    """Group `generator`: REPA, SiT plus alignment with a frozen encoder (2410.06940)."""

    projection_weight: float
    """Weight of the alignment term (published 0.5)."""
    target: AlignmentTarget
    """Published: dinov2_base."""
    target_weights: str | None
    """DINOv2: a file below weights/, else a hub id, the only thing that is ever downloaded."""

    def __post_init__(self) -> None:
        # Not super(): a dataclass with slots is a new class, which zero-argument super misses.
        SiTConfig.__post_init__(self)
        self._above(0, "projection_weight")
        own = self.target is AlignmentTarget.in_domain
        self._rule(
            "target_weights",
            (self.target_weights is None) == own,
            "null for target in_domain, else a file below weights/ or a hub id",
        )


@dataclass(kw_only=True, slots=True)
class MaskGITConfig(Checked):
    """Group `generator`: MaskGIT, masked token prediction (2202.04200)."""

    objective: Objective
    schedule: str
    """cosine, linear or arccos share of masked tokens."""
    label_smoothing: float
    dropout: float
    """Share of activations dropped after attention and in the MLP (published 0.1)."""

    def __post_init__(self) -> None:
        known = ("cosine", "linear", "arccos")
        self._rule("schedule", self.schedule in known, "cosine, linear or arccos")
        self._within(0, 1, "label_smoothing")
        self._rule("dropout", 0 <= self.dropout < 1, "from 0 to below 1")


@dataclass(kw_only=True, slots=True)
class TrainGeneratorConfig(Checked):
    """Section `train_generator`: the same for every generator and arm of a profile."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    label_dropout: float
    """Probability of the null class (classifier-free guidance)."""
    gradient_clip: float
    ema_half_life_images: int
    """Published half-life in images (0.9999 at batch 256: 1.77 million)."""
    ema_ramp: float
    """The half-life is at most this share of the images seen so far."""
    checkpoints: list[float]
    """Fractions of the run at which weights are kept, ascending, last 1."""
    raw_weights: bool
    """Whether the trained weights are kept beside their EMA, for samplers with weights `raw`."""
    micro_batch_size: int | None
    """Images passed at once, by all processes together, to fit the memory; must divide batch_size;
    null: the whole batch."""
    precision: Precision
    compile: bool
    """Compile the network's blocks; needs a C++ compiler on a CPU."""
    cuda_graph: bool
    """Replay a step as one graph: for small networks, whose kernels wait for the host. On a CPU and
    with several processes, nothing."""
    deterministic: bool
    """The same last bits at every start; false: faster kernels whose sums have no fixed order."""

    def __post_init__(self) -> None:
        self._at_least(1, "steps", "batch_size", "ema_half_life_images")
        self._above(0, "learning_rate", "gradient_clip", "ema_ramp")
        self._at_least(0, "warmup_steps", "weight_decay")
        self._within(0, 1, "label_dropout", "ema_ramp")
        if self.micro_batch_size is not None:
            self._at_least(1, "micro_batch_size")
            divides = self.batch_size % self.micro_batch_size == 0
            self._rule("micro_batch_size", divides, f"a divisor of batch_size {self.batch_size}")
        c = self.checkpoints
        self._rule(
            "checkpoints",
            bool(c) and c == sorted(set(c)) and c[0] > 0 and c[-1] == 1,
            "ascending fractions of the run that end at 1",
        )


GeneratorConfig = DiTConfig | SiTConfig | REPAConfig | MaskGITConfig

OBJECTIVES: dict[str, type[DiTConfig | SiTConfig | MaskGITConfig]] = {
    "dit": DiTConfig,
    "sit": SiTConfig,
    "repa": REPAConfig,
    "maskgit": MaskGITConfig,
}

EXTENSIONS: dict[str, str] = {
    # "name": "study.generators.name",
}
"""Generators of one module each: its parameters `Config` (with the field `objective`), the sampling
methods it knows, `SAMPLERS`, and `build(config)`. See `docs/recipes.md`."""
