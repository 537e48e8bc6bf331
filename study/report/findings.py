"""What the report says in sentences; every number comes from the results."""

from collections.abc import Callable
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
    TREATMENT,
    UNTRANSFORMED,
    compared,
    first_present,
    label,
)
from study.report.results import instances, where
from study.report.table import (
    Row,
    default_schedule,
    gain_text,
    signed,
    table_rows,
    with_control,
)
from study.report.tables import (
    checkpoint,
    distances,
    gain_of,
    gain_over_control,
    last_pairs,
    measures,
    paired,
)
from study.statistics import t_interval

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
        *_further(generators, generated),
        *_untransformed(generators, generated),
        *_over_pretrained(generators, generated),
        *_autoencoders(table_rows(grid, "evaluate_autoencoder"), measured),
    ]
    gaps = f"{missing} of {planned} cells {NOT_RUN}, listed below."
    gaps = gaps if missing else f"All {planned} cells of the grid ran."
    last = [*_learning(generators, generated), _seeds(grid, results), gaps]
    return [*found, " ".join([*last, *_without_a_pair(generators, generated)])]


def other_recipes(grid: dict[str, Any], results: pd.DataFrame) -> str:
    """What other transforms and objectives gain, by both extractors; empty where none has run."""
    rows = table_rows(grid, "evaluate_generator")
    own = where(results, "stage", "evaluate_generator")
    ran, metrics = _ran(rows, own), distances(own)
    others = [row for row in default_schedule(ran) if row.arm not in FIRST]
    size, told = _in_brief({f"{row.title(ran)} `{row.arm}`": row for row in others}, own, metrics)
    by = ", ".join(label(name, where(own, "metric", name)["n"]) for name in metrics)
    head = f"Other recipes and rivals ({size}), gain over `{CONTROL}` by {by}"
    return f"{head}: {told}." if told else ""


def _generators(rows: list[Row], results: pd.DataFrame) -> list[str]:
    if not rows:
        return []
    metric, ran = first_present(results, FRECHET), _ran(rows, results)
    name = label(metric, where(results, "metric", metric)["n"])
    foremost = _treated(rows, results)[:FOREMOST]
    told = {row.title(ran): _against(row, results, metric, CONTROL) for row in foremost}
    shown = "; ".join(f"{title} {text}" for title, text in told.items() if text)
    head = f"Generators, {name} at the end, {compared(TREATMENT, CONTROL)}"
    return [f"{head}: {shown or NOT_RUN}."]


def _further(rows: list[Row], results: pd.DataFrame) -> list[str]:
    """Gains of the generators after the foremost; their intervals are in the table of gains."""
    ran = _ran(rows, results)
    further = {row.title(ran): row for row in _treated(rows, results)[FOREMOST:]}
    size, told = _in_brief(further, results, measures(results))
    head = f"Further comparisons, the same gains in that order ({size})"
    return [f"{head}: {told}."] if told else []


def _in_brief(rows: dict[str, Row], results: pd.DataFrame, metrics: list[str]) -> tuple[str, str]:
    """Number of seeds and, of each row with a control, gains over it by several distances."""
    parts, sizes = [], []
    for name, row in rows.items():
        gains = [gain_over_control(row, results, metric) for metric in metrics]
        if any(gains):
            shown = (f"{signed(100 * gain.value, 1)} %" if gain else "–" for gain in gains)
            parts.append(f"{name} {', '.join(shown)}")
            sizes += [gain.n for gain in gains if gain]
    return sample_size(sizes), " · ".join(parts)


def _without_a_pair(rows: list[Row], results: pd.DataFrame) -> list[str]:
    """Generators that are to be compared and have no seed of both arms, where others have."""
    metric = first_present(results, FRECHET)
    wanted = [row for row in default_schedule(with_control(rows)) if row.arm == TREATMENT]
    left = [row for row in wanted if not last_pairs(row, results, metric, CONTROL)]
    names = " · ".join(row.title(rows) for row in left)
    head = f"Without a pair of `{TREATMENT}` and `{CONTROL}` at the default schedule"
    return [f"{head}: {names}."] if left and len(left) < len(wanted) else []


def _ran(rows: list[Row], results: pd.DataFrame) -> list[Row]:
    """Rows of which a cell ran: names of these need not tell them from what is only planned."""
    return [row for row in rows if len(row.all_of(results))]


def _treated(rows: list[Row], results: pd.DataFrame) -> list[Row]:
    """Generators on the treatment's latents that share a seed with an arm they are held against."""
    metric = first_present(results, FRECHET)
    return [
        row
        for row in default_schedule(with_control(rows))
        if row.arm == TREATMENT
        and any(last_pairs(row, results, metric, other) for other in (CONTROL, PRETRAINED))
    ]


def _other_measures(rows: list[Row], results: pd.DataFrame) -> list[str]:
    """How much of a gain other features see, and how much of it decoding may be; same seeds."""

    def told(row: Row, metric: str) -> str:
        gain = gain_over_control(row, results, metric)
        return gain_text(gain, seeds=False) if gain else ""

    found = _by_measure(rows, results, measures(results)[1:], told)
    return [f"The same gains by other measures. {found}."] if found else []


def _untransformed(rows: list[Row], results: pd.DataFrame) -> list[str]:
    """What fine-tuning otherwise than the control gains where nothing is transformed."""
    metric, ran = first_present(results, FRECHET), _ran(rows, results)
    own = [row for row in default_schedule(ran) if row.arm in UNTRANSFORMED]
    gains = [(row, gain_over_control(row, results, metric)) for row in own]
    told = [(row, gain) for row, gain in gains if gain]
    parts = [f"`{row.arm}`: {row.title(ran)} {gain_text(gain, seeds=False)}" for row, gain in told]
    name = label(metric, where(results, "metric", metric)["n"])
    size = sample_size([gain.n for _, gain in told])
    head = f"Without transforms ({size}), gain over `{CONTROL}` by {name}"
    return [f"{head}: {'; '.join(parts)}."] if parts else []


def _over_pretrained(rows: list[Row], results: pd.DataFrame) -> list[str]:
    """What the treatment gains over the autoencoder that no arm has touched."""

    def told(row: Row, metric: str) -> str:
        return _against(row, results, metric, PRETRAINED)

    found = _by_measure(rows, results, measures(results), told)
    return [f"{compared(TREATMENT, PRETRAINED)}: {found}."] if found else []


def _by_measure(
    rows: list[Row], results: pd.DataFrame, metrics: list[str], tell: Callable[[Row, str], str]
) -> str:
    """A part per measure, of the foremost generators of which there is something to tell."""
    decoding, found = first_present(results, OF_RECONSTRUCTIONS), []
    ran = _ran(rows, results)
    foremost = _treated(rows, results)[:FOREMOST]
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
        errors, qualities = (_pairs(row, results, m) for m in ("equivariance_error", "psnr_db"))
        told = [text for text in (_error(errors), _quality(qualities)) if text]
        size = sample_size([len(errors), len(qualities)])
        parts[f"`{row.title(rows)}`"] = ", ".join([*told, size]) if told else ""
    head = f"Autoencoders, {compared(TREATMENT, CONTROL)}, equivariance error and PSNR"
    return [f"{head}: {_listed(parts)}."]


def _error(pairs: list[tuple[float, float]]) -> str:
    gain = gain_of(pairs)
    if gain is None:
        return ""
    if gain.low is None or gain.high is None:
        return f"×{1 - gain.value:.3g}"
    return f"×{1 - gain.value:.3g} [{1 - gain.high:.3g}, {1 - gain.low:.3g}]"


def _quality(pairs: list[tuple[float, float]]) -> str:
    differences = [t - c for t, c in pairs]
    if not differences:
        return ""
    text = f"{signed(fmean(differences), 2)} dB"
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
