"""What a measurement gives: one number and how it came about."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """A number over n images; `low` and `high` bound what is expected at this n."""

    metric: str
    value: float
    n: int
    extractor: str | None = None
    """None: of no features."""
    low: float | None = None
    high: float | None = None
