"""What the report says in sentences; every number comes from the results."""

import math
from collections.abc import Callable
from itertools import pairwise
from statistics import fmean
from typing import Any

import pandas as pd

from study.report.figures import sample_size
from study.report.names import (
    CONTROL,
    FIRST,
    FOREMOST,
    FRECHET,
    NOT_RUN,
    OF_RECONSTRUCTIONS,
    PRETRAINED,
    RULER,
    SECOND,
    TO_RECONSTRUCTIONS,
    TREATMENT,
    UNTRANSFORMED,
    compared,
    controls,
    first_present,
    label,
)
from study.report.results import instances, where
from study.report.table import Row, gain_text, signed, table_rows, with_control
from study.report.tables import checkpoint, gain_over_control, last_pairs, paired
from study.statistics import Estimate, paired_gain, t_interval

_MACHINERY = "This profile shows that the machinery works. It is no evidence about EQ-VAE: "
_NOT_SHOWN = (
    "distances in the features of the study's own networks. It does not show what larger "
    "generators, longer training, other images or the paper's FID would."
)
_SCOPES = {
    "smoke": _MACHINERY + "a few training steps on tens of procedural images.",
    "laptop": _MACHINERY + "procedural images, small networks and minutes of training.",
    "images": _MACHINERY + "your images, but few of them, small networks and one seed.",
    "autoencoders": "Evidence about autoencoders at small scale: no generator is trained on them.",
    "lab": "Evidence at small scale: S/2 generators trained for minutes on 20 classes at 128 px, "
    + _NOT_SHOWN,
    "lab_64": "Evidence at small scale: S/2 generators trained for minutes on 100 classes at 64 "
    "px, on latents of an autoencoder that the study trained from scratch, " + _NOT_SHOWN,
    "paper": "The paper's own models and data.",
    "paper_b": "The paper's B/2 models and data, with its ablations.",
    "paper_vq": "The paper's discrete autoencoder, generator and data.",
    "paper_released": "The paper's models and data, on its authors' checkpoints as released.",
}


def scope(profile: str) -> str:
    """What the profile is evidence for."""
    return _SCOPES.get(profile, f"Profile `{profile}` is none of the study's own.")


def findings(grid: dict[str, Any], results: pd.DataFrame, missing: int, planned: int) -> list[str]:
    """The report's first lines: effect on generators and autoencoders, learning, seeds, gaps."""
    generated = where(results, "stage", "evaluate_generator")
    measured = where(results, "stage", "evaluate_autoencoder")
    generators = table_rows(grid, "evaluate_generator")
    found = [
        *_generators(generators, generated),
        *_other_measures(generators, generated),
        *_untransformed(generators, generated),
        *_over_pretrained(generators, generated),
        *_autoencoders(table_rows(grid, "evaluate_autoencoder"), measured),
        *_learning(generators, generated),
    ]
    gaps = f"{missing} of {planned} cells {NOT_RUN}, listed below."
    gaps = gaps if missing else f"All {planned} cells of the grid ran."
    return [*found, f"{_seeds(grid, results)} {gaps}"]


def other_recipes(grid: dict[str, Any], results: pd.DataFrame) -> str:
    """What other transforms and objectives gain, by both extractors; empty where none has run."""
    rows = table_rows(grid, "evaluate_generator")
    own = where(results, "stage", "evaluate_generator")
    ran, main = _ran(rows, own), first_present(own, FRECHET)
    others = [name for key, name in SECOND.items() if key == main and name in set(own["metric"])]
    parts, sizes = [], []
    for row, gain in _gains(ran, own, main, lambda arm: arm not in FIRST):
        gains = [gain, *(gain_over_control(row, own, name) for name in others)]
        shown = ", ".join(f"{signed(100 * each.value, 1)} %" if each else NOT_RUN for each in gains)
        parts.append(f"{row.title(ran)} `{row.arm}` {shown}")
        sizes.append(gain.n)
    by = ", ".join(label(name, where(own, "metric", name)["n"]) for name in (main, *others))
    head = f"Other recipes and rivals ({sample_size(sizes)}), gain over `{CONTROL}` by {by}"
    return f"{head}: {' · '.join(parts)}." if parts else ""


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


def _generators(rows: list[Row], results: pd.DataFrame) -> list[str]:
    if not rows:
        return []
    metric = first_present(results, FRECHET)
    name = label(metric, where(results, "metric", metric)["n"])
    told = [(row, _against(row, results, metric, CONTROL)) for row in _treated(rows)]
    ran = _ran(rows, results)
    parts = {row.title(ran if text else rows): text for row, text in told}
    head = f"Generators, {name} at the last checkpoint, {compared(TREATMENT, CONTROL)}"
    return [f"{head}: {_listed(parts)}."]


def _ran(rows: list[Row], results: pd.DataFrame) -> list[Row]:
    """Rows of which a cell ran: names of these need not tell them from what is only planned."""
    return [row for row in rows if len(row.all_of(results))]


def _treated(rows: list[Row]) -> list[Row]:
    """Generators on the treatment's latents; of other schedules and lengths there is a table."""
    known = (row for row in with_control(rows) if row.arm == TREATMENT)
    return [row for row in known if not controls(row.choices["generator"])]


def _other_measures(rows: list[Row], results: pd.DataFrame) -> list[str]:
    """How much of a gain other features see, and how much of it decoding may be; same seeds."""

    def told(row: Row, metric: str) -> str:
        gain = gain_over_control(row, results, metric)
        return gain_text(gain, seeds=False) if gain else ""

    found = _by_measure(rows, results, _measures(results)[1:], told)
    return [f"The same gains by other measures. {found}."] if found else []


def _untransformed(rows: list[Row], results: pd.DataFrame) -> list[str]:
    """What fine-tuning otherwise than the control gains where nothing is transformed."""
    metric, ran = first_present(results, FRECHET), _ran(rows, results)
    gains = _gains(ran, results, metric, lambda arm: arm in UNTRANSFORMED)
    parts = [f"`{row.arm}`: {row.title(ran)} {gain_text(gain)}" for row, gain in gains]
    name = label(metric, where(results, "metric", metric)["n"])
    head = f"Without transforms, gain over `{CONTROL}` by {name}"
    return [f"{head}: {'; '.join(parts)}."] if parts else []


def _gains(
    rows: list[Row], results: pd.DataFrame, metric: str, wanted: Callable[[str], bool]
) -> list[tuple[Row, Estimate]]:
    """Gains over the control, where there are any, of some arms with no other schedule."""
    own = [row for row in rows if wanted(row.arm) and not controls(row.choices["generator"])]
    gains = ((row, gain_over_control(row, results, metric)) for row in own)
    return [(row, gain) for row, gain in gains if gain]


def _over_pretrained(rows: list[Row], results: pd.DataFrame) -> list[str]:
    """What the treatment gains over the autoencoder that no arm has touched."""

    def told(row: Row, metric: str) -> str:
        return _against(row, results, metric, PRETRAINED)

    found = _by_measure(rows, results, _measures(results), told)
    return [f"{compared(TREATMENT, PRETRAINED)}: {found}."] if found else []


def _measures(results: pd.DataFrame) -> list[str]:
    """The main distance, that of other features, and the two that tell decoding apart."""
    main = first_present(results, FRECHET)
    decoding = (first_present(results, m) for m in (TO_RECONSTRUCTIONS, OF_RECONSTRUCTIONS))
    return [name for name in (main, SECOND.get(main), *decoding) if name]


def _by_measure(
    rows: list[Row], results: pd.DataFrame, metrics: list[str], tell: Callable[[Row, str], str]
) -> str:
    """A part per measure, of the foremost generators of which there is something to tell."""
    decoding, found = first_present(results, OF_RECONSTRUCTIONS), []
    ran = _ran(rows, results)
    foremost = [row for row in _treated(rows) if row in ran][:FOREMOST]
    for metric in metrics:
        texts = {row.title(ran): tell(row, metric) for row in foremost}
        if told := " · ".join(f"{title} {text}" for title, text in texts.items() if text):
            name = label(metric, where(results, "metric", metric)["n"])
            least = ", the least that they can reach" * (metric == decoding)
            found.append(f"{name}{least}: {told}")
    return "; ".join(found)


def _listed(parts: dict[str, str]) -> str:
    """What was found of each, and the names of those of which nothing was."""
    ran = [f"{name} {text}" for name, text in parts.items() if text]
    rest = [name for name, text in parts.items() if not text]
    if not ran:
        return NOT_RUN
    return "; ".join([*ran, *([f"{NOT_RUN}: {' · '.join(rest)}"] if rest else [])])


def _against(row: Row, results: pd.DataFrame, metric: str, control: str) -> str:
    """What an arm gains, in the seeds that both have; empty where either has not run."""
    gain = gain_over_control(row, results, metric, control)
    if gain is None:
        return ""
    ours, theirs = map(fmean, zip(*last_pairs(row, results, metric, control), strict=True))
    return f"{ours:.4g} against {theirs:.4g}, gain {gain_text(gain)}"


def _autoencoders(rows: list[Row], results: pd.DataFrame) -> list[str]:
    treated = [row for row in with_control(rows) if row.arm == TREATMENT]
    parts = {}
    for row in treated:
        told = [text for text in (_error(row, results), _quality(row, results)) if text]
        parts[f"`{row.title(rows)}`"] = ", ".join(told)
    return [f"Autoencoders, {compared(TREATMENT, CONTROL)}: {_listed(parts)}."]


def _error(row: Row, results: pd.DataFrame) -> str:
    pairs = _pairs(row, results, "equivariance_error")
    if not pairs or min(min(pair) for pair in pairs) <= 0:
        return ""
    gain = paired_gain([t for t, _ in pairs], [c for _, c in pairs])
    if gain.low is None or gain.high is None:
        return f"{1 - gain.value:.3g} times the equivariance error"
    interval = f"[{1 - gain.high:.3g}, {1 - gain.low:.3g}]"
    return f"{1 - gain.value:.3g} {interval} times the equivariance error"


def _quality(row: Row, results: pd.DataFrame) -> str:
    differences = [t - c for t, c in _pairs(row, results, "psnr_db")]
    if not differences:
        return ""
    text = f"PSNR {signed(math.fsum(differences) / len(differences), 2)} dB"
    if (interval := t_interval(differences)) is None:
        return text
    return f"{text} [{signed(interval[0], 2)}, {signed(interval[1], 2)}]"


def _pairs(row: Row, results: pd.DataFrame, metric: str) -> list[tuple[float, float]]:
    return paired(row.of(results, metric), row.beside(CONTROL).of(results, metric))


def _learning(rows: list[Row], results: pd.DataFrame) -> list[str]:
    metric = first_present(results, FRECHET)
    below = total = 0
    for row in rows:
        last = checkpoint(row.of(results, metric), -1)
        pairs = paired(last, row.of(results, f"{metric}_random_latents"))
        below += sum(end < start for end, start in pairs)
        total += len(pairs)
    if not total:
        return []
    return [f"Learning: {below} of {total} generators end below the distance of random latents."]


def _seeds(grid: dict[str, Any], results: pd.DataFrame) -> str:
    planned = sorted({cell.seed for _, _, cell in instances(grid) if cell.seed is not None})
    ran = set(where(results, "stage", "evaluate_autoencoder", "evaluate_generator")["seed"])
    seeds = [seed for seed in planned if seed in ran]
    names = ", ".join(map(str, seeds)) or "none"
    of = f" of {', '.join(map(str, planned))}" if len(seeds) < len(planned) else ""
    if len(seeds) < 2:
        return f"Seed {names}{of} only: no interval over seeds, so differences may be chance."
    return f"Seeds {names}{of} (n = {len(seeds)}); intervals are Student-t 95 % over seeds."
