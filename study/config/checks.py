"""Range checks that name field, value and rule."""

import math


class ConfigError(ValueError):
    """A parameter is missing, unknown, of the wrong type or out of range; the text is one line."""


class MissingInputs(ConfigError):
    """Several inputs are not there, a line each."""


class StudyError(RuntimeError):
    """Training or measuring cannot go on; the text is one line that says where and why."""


class Checked:
    """Base of the parameter dataclasses."""

    __slots__ = ()

    def _rule(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ConfigError(f"{name} = {getattr(self, name)!r}: must be {rule}")

    def _at_least(self, low: float, *names: str) -> None:
        for name in names:
            self._rule(name, getattr(self, name) >= low, f"at least {low}")
            self._rule(name, math.isfinite(getattr(self, name)), "finite")

    def _above(self, low: float, *names: str) -> None:
        for name in names:
            self._rule(name, getattr(self, name) > low, f"greater than {low}")
            self._rule(name, math.isfinite(getattr(self, name)), "finite")

    def _within(self, low: float, high: float, *names: str) -> None:
        for name in names:
            self._rule(name, low <= getattr(self, name) <= high, f"from {low} to {high}")
