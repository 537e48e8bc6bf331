"""What the report says of its own instruments: the measuring networks and the distances."""

from itertools import pairwise

import pandas as pd

from study.report.names import FRECHET, RULER, SECOND, label
from study.report.results import where


def measurement(results: pd.DataFrame) -> list[str]:
    """How well the measuring networks classify, and how small a distance can get."""
    lines = []
    for row in where(results, "stage", "train_network").to_dict("records"):
        if row["metric"].startswith("accuracy_"):
            role = row["metric"].removeprefix("accuracy_")
            unlabelled = role == "extractor_self_supervised"
            how = ", by nearest training images in its features" * unlabelled
            lines.append(f"Held-out accuracy of network `{role}`{how}: {row['value']:.3f}.")
    for row in where(results, "stage", "reference_statistics").to_dict("records"):
        if row["metric"].endswith("_floor"):
            name = label(row["metric"].removesuffix("_floor"), [row["n"]])
            if row["metric"].removesuffix("_floor") in (*FRECHET, *SECOND.values()):
                lines.append(f"Floor, {name} of real against real images: {row['value']:.4g}.")
    real = where(results, "stage", "reference_statistics")
    lines += _responses(real, "ruler", "the distance")
    if any(real["metric"].str.startswith("ruler_self_supervised")):
        lines += _responses(real, "ruler_self_supervised", "the self-supervised distance")
    return lines


def _responses(results: pd.DataFrame, ruler: str, name: str) -> list[str]:
    """Whether a distance rises with every grade of every degradation."""
    lines, rising = [], True
    for kind, shown in RULER.items():
        grades = where(results, "metric", *(f"{ruler}_{kind}_{i}" for i in range(9)))
        for data, own in grades.groupby("data"):
            values = own.sort_values("metric")["value"].tolist()
            rises = all(before < after for before, after in pairwise(values))
            rising &= rises
            steps = ", ".join(f"{value:.4g}" for value in values)
            verdict = "rises" if rises else "**does not rise**"
            size = f"n = {int(own['n'].iloc[0]):,}"
            lines.append(f"Under {shown} {name} {verdict}: {steps} (`{data}`, {size}).")
    if not lines:
        return ["Response to degraded images: not measured."]
    whole = f"{name[:1].upper()}{name[1:]}"
    if not rising:
        return [*lines, f"{whole} misses a degradation: what it says of samples is in doubt."]
    return [*lines, f"{whole} rises with every grade of every degradation."]
