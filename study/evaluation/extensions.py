"""Measures of latents that stand in one module each; see `docs/recipes.md`."""

from importlib import import_module

from torch import Tensor

EXTENSIONS: list[str] = [
    # "study.evaluation.name",
]
"""Modules with a function `measure(latents) -> dict[str, float]`; latents N c h w, standardised."""


def measures(latents: Tensor) -> dict[str, float]:
    """All of them, by the names in `results.csv`."""
    found: dict[str, float] = {}
    for name in EXTENSIONS:
        found |= import_module(name).measure(latents)
    return found
