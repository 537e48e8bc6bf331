"""A cell of the study: which instance of a stage, by the names of its choices."""

from dataclasses import dataclass, fields

from study.config.checks import ConfigError
from study.config.generator import Scaling

# The order in which choices appear in the name of an instance; the others are implied by them.
_NAMED = ("profile", "data", "role", "autoencoder", "arm", "seed", "generator", "scaling")


@dataclass(kw_only=True, slots=True, frozen=True)
class Cell:
    """Choices that identify an instance; a stage sets those it needs."""

    profile: str
    data: str | None = None
    role: str | None = None
    network: str | None = None
    autoencoder: str | None = None
    arm: str | None = None
    seed: int | None = None
    generator: str | None = None
    scaling: str | None = None
    backbone: str | None = None
    sampler: str | None = None
    evaluation: str | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, str) and not value.replace("_", "").isalnum():
                rule = "letters, digits and underscores (- separates names of an instance)"
                raise ConfigError(f"{item.name} = {value!r}: must be {rule}")
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"seed = {self.seed}: must be at least 0")
        if self.scaling is not None and self.scaling not in Scaling.__members__:
            raise ConfigError(
                f"scaling = {self.scaling!r}: must be one of {list(Scaling.__members__)}"
            )

    @property
    def instance(self) -> str:
        """Name of the instance: profile-data-autoencoder-arm-seed-generator-scaling, where set."""
        values = (getattr(self, name) for name in _NAMED)
        return "-".join(str(value) for value in values if value is not None)

    def only(self, *names: str) -> "Cell":
        """The cell of another stage that shares the named choices (profile always)."""
        return Cell(profile=self.profile, **{name: getattr(self, name) for name in names})

    @classmethod
    def parse(cls, arguments: list[str]) -> "Cell":
        """Read `key=value` arguments.

        Raises:
            ConfigError: an argument without '=', an unknown key, a seed that is no whole number.
        """
        known = [item.name for item in fields(cls)]
        values: dict[str, str | int] = {}
        for argument in arguments:
            key, equals, value = argument.partition("=")
            if not equals or key not in known:
                raise ConfigError(f"{argument!r}: must be KEY=VALUE with KEY in {', '.join(known)}")
            values[key] = value
        if "profile" not in values:
            raise ConfigError("profile: missing; give profile=NAME")
        if "seed" in values:
            try:
                values["seed"] = int(values["seed"])
            except ValueError:
                raise ConfigError(f"seed = {values['seed']!r}: must be a whole number") from None
        return cls(**values)  # type: ignore[arg-type]
