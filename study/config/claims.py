"""Claims to judge, with the rules by which they are judged: `params/claims.yaml`."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from study import paths
from study.config.checks import Checked, ConfigError
from study.config.generator import Objective, Scaling
from study.config.load import choices, convert, load_grid


class Status(Enum):
    """Whether the claim's verdict is the study's question or a by-product."""

    confirmatory = "confirmatory"
    exploratory = "exploratory"


class Autoencoders(Enum):
    """Of which autoencoders an endpoint is: the first continuous one, the others, discrete ones."""

    main = "main"
    others = "others"
    discrete = "discrete"


class Effect(Enum):
    """What is averaged over seeds; positive: the treatment is better."""

    relative = "relative"
    """Share by which the treatment is better: 1 - exp(mean of ln treatment - ln control) where
    lower is better, exp(...) - 1 where higher is."""
    absolute = "absolute"
    """Difference, in the metric's units."""
    speed_up = "speed_up"
    """Factor by which the treatment reaches the control's distance earlier, less one."""
    correlation = "correlation"
    """Spearman's, over arms, of the metric with `against`."""


class Hypothesis(Enum):
    """What the interval must show for `supported`, with the threshold t of practical size."""

    improves = "improves"
    """Above t."""
    not_worse = "not_worse"
    """Above -t."""
    equal = "equal"
    """Within ±t."""


class Better(Enum):
    """Which values of a metric are good."""

    lower = "lower"
    higher = "higher"


@dataclass(kw_only=True, slots=True)
class Endpoint(Checked):
    """One comparison that bears on a claim."""

    primary: bool
    """Whether it decides the claim; a secondary one is shown with it."""
    treatment: str | None
    """Arm; null for a correlation, which is over all arms."""
    control: str | None
    generator: str | None
    """Objective of the generators compared; null: autoencoders alone are."""
    scaling: str | None
    """Of the generator's latents; null without generator."""
    autoencoders: Autoencoders
    metric: list[str]
    """Names in `results.csv`; the first that was measured counts. `*` at the end: the largest
    number."""
    against: list[str]
    """Correlation: the autoencoders' metric; else empty."""
    better: Better
    effect: Effect
    hypothesis: Hypothesis
    threshold: float
    """Smallest effect of practical size."""
    checkpoints: int | None
    """Generator: the last ones, over which differences are averaged; null without generator."""
    fraction: float | None
    """speed_up: share of the control's run whose distance is to be reached; else null."""

    def __post_init__(self) -> None:
        over_arms = self.effect is Effect.correlation
        for name in ("treatment", "control"):
            value = getattr(self, name)
            self._rule(name, (value is None) == over_arms, "null exactly for a correlation")
            known = value is None or value in choices("arm")
            self._rule(name, known, "the name of a file in params/arm")
        generators = [objective.value for objective in Objective]
        known = self.generator is None or self.generator in generators
        self._rule("generator", known, f"null or one of {', '.join(generators)}")
        scalings = list(Scaling.__members__) if self.generator else [None]
        self._rule("scaling", self.scaling in scalings, f"one of {scalings}")
        self._rule("metric", bool(self.metric), "at least one name")
        self._rule("against", bool(self.against) == over_arms, "given exactly for a correlation")
        self._rule("threshold", 0 < self.threshold < 1, "between 0 and 1")
        given = (self.checkpoints is None) == (self.generator is None)
        self._rule("checkpoints", given, "given exactly with a generator")
        if self.checkpoints is not None:
            self._at_least(1, "checkpoints")
        share = (self.fraction is None) == (self.effect is not Effect.speed_up)
        self._rule("fraction", share, "given exactly for speed_up")
        if self.fraction is not None:
            self._rule("fraction", 0 < self.fraction <= 1, "above 0, at most 1")
        needs = self.effect in (Effect.relative, Effect.absolute) or self.generator is not None
        self._rule("effect", needs, "relative or absolute without generator")


@dataclass(kw_only=True, slots=True)
class Claim(Checked):
    """A claim about EQ-VAE and what this study makes of it."""

    number: int
    claim: str
    status: Status
    family: str
    """Exploratory claims of one family share their error probability."""
    paper: str
    """The paper's numbers."""
    source: str
    """Where in the paper."""
    covers: str
    """What of the claim the endpoints judge, and what they leave out."""
    missing: str | None
    """What the study would need and does not have; null where there are endpoints."""
    endpoints: list[Endpoint]

    def __post_init__(self) -> None:
        self._at_least(1, "number")
        decides = any(endpoint.primary for endpoint in self.endpoints)
        self._rule("missing", (self.missing is None) == decides, "given without primary endpoints")


def load_claims(path: Path) -> list[Claim]:
    """Read the claims in the order of their numbers.

    Raises:
        ConfigError: one line that names file, field, value and rule.
    """
    values, shown = load_grid(path), paths.shown(path)
    entries = values.get("claims")
    if set(values) != {"claims"} or not isinstance(entries, list):
        raise ConfigError(f"{shown}: must have the key claims, a list, and no other")
    claims = [convert(Claim, each, f"{shown}: claims[{i}].") for i, each in enumerate(entries)]
    numbers = [claim.number for claim in claims]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"{shown}: number: must be of one claim each, are {numbers}")
    return sorted(claims, key=lambda claim: claim.number)
