"""Tables of the claims: a verdict for each, and every endpoint with every seed."""

import math
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import pandas as pd

from study.config import Scaling
from study.config.claims import Better, Effect, Endpoint, Hypothesis
from study.report.names import (
    BOUNDS,
    NOT_RUN,
    SECOND,
    autoencoder,
    backbone,
    compared,
    generator,
    label,
    ruler_name,
)
from study.report.protocol import Cells
from study.report.results import instances
from study.report.table import Table, minutes_text, signed
from study.report.verdicts import Judged, Outcome, Verdict

_OF_AUTOENCODER = ("finetune_autoencoder", "evaluate_autoencoder", "cache_latents")
_OF_GENERATOR = ("train_generator", "evaluate_generator")
_RULES = {
    Hypothesis.improves: "above {t}",
    Hypothesis.not_worse: "above −{t}",
    Hypothesis.equal: "within ±{t}",
}
OTHER_SIGN = ": the second extractor has another sign"


def claims_table(
    judged: list[Judged], grid: dict[str, Any], cells: Cells, costs: pd.DataFrame
) -> Table:
    """A row per claim: verdict, effects of its primary endpoints, cost, scope."""
    table = Table("claims")
    for each in judged:
        primary = [o for o in each.outcomes if o.endpoint.primary]
        ran = [o for o in primary if o.estimate is not None]
        effects = "; ".join(f"{_what(o)} {effect_text(o)}{_beside(o)}" for o in ran)
        without = f"needs {', '.join(each.missing)}" if each.missing else ""
        minutes = _minutes(ran, grid, costs)
        seeds = [len(o.found.values) for o in ran]
        table.add(
            {
                "No.": str(each.claim.number),
                "Claim": each.claim.claim,
                "Status": each.claim.status.value,
                "Verdict": each.verdict.value,
                "Effect": "; ".join(filter(None, (effects, without))),
                "Paper": each.claim.paper,
                "Seeds": str(min(seeds)) if seeds else NOT_RUN,
                "Cost [min]": minutes_text(minutes) if ran else NOT_RUN,
                "Scope": _scope(ran, grid, cells) if ran else NOT_RUN,
            },
            {
                "number": each.claim.number,
                "claim": each.claim.claim,
                "status": each.claim.status.value,
                "verdict": each.verdict.value,
                "seeds": min(seeds) if seeds else 0,
                "minutes": minutes if ran else None,
                "missing": ", ".join(each.missing),
                "paper": each.claim.paper,
                "source": each.claim.source,
                "covers": each.claim.covers,
            },
        )
    table.notes = [
        "Rules, written before the runs: `params/claims.yaml`. Effect: positive is better for the "
        "treatment, with Student-t interval over seeds; 95 % for the confirmatory claims, for "
        "the exploratory ones 95 % for all primary endpoints of a family together (Holm). Cost: "
        "wall clock of all cells compared, however many claims share them. How the numbers were "
        "made stands under the table of endpoints. In brackets, of distances of generators: the "
        "effect by the second extractor, trained without labels; with another sign the endpoint is "
        "undecided. *Reproduced* would be "
        "the paper's own model, data and FID of 50,000 samples.",
    ]
    return table


def endpoints_table(judged: list[Judged]) -> Table:
    """A row per endpoint: comparison, rule, effect, every seed, verdict."""
    table, differing = Table("endpoints"), _differing(judged)
    for each in judged:
        for outcome in each.outcomes:
            endpoint, found = outcome.endpoint, outcome.found
            value, low, high = _shown_estimate(outcome)
            seeds = {seed: shown(endpoint, v) for seed, v in found.values.items()}
            missing = ", ".join(found.missing)
            table.add(
                {
                    "No.": str(each.claim.number),
                    "Endpoint": "primary" if endpoint.primary else "secondary",
                    "Comparison": _comparison(outcome, differing),
                    "Measure": _what(outcome),
                    "Supported": _RULES[endpoint.hypothesis].format(t=_size(endpoint)),
                    "Effect": effect_text(outcome) if seeds else f"needs {missing}",
                    "Second extractor": _second_text(outcome),
                    "Interval": f"{100 * outcome.level:.4g} %" if seeds else NOT_RUN,
                    "Each seed": ", ".join(_text(endpoint, v) for v in seeds.values()) or NOT_RUN,
                    "Seeds asked for": str(outcome.asked or "–") if seeds else NOT_RUN,
                    "Verdict": outcome.verdict.value + OTHER_SIGN * outcome.contradicted,
                },
                {
                    "number": each.claim.number,
                    "primary": endpoint.primary,
                    **found.choices,
                    "treatment": endpoint.treatment,
                    "control": endpoint.control,
                    "metric": found.metric,
                    "effect": endpoint.effect.value,
                    "hypothesis": endpoint.hypothesis.value,
                    "threshold": endpoint.threshold,
                    "value": value,
                    "low": low,
                    "high": high,
                    "level": outcome.level,
                    "seeds": " ".join(f"{seed}:{v:.6g}" for seed, v in seeds.items()),
                    "seeds_needed": outcome.asked,
                    "bound": found.bound,
                    "second_value": _second_value(outcome),
                    "contradicted": outcome.contradicted,
                    "verdict": outcome.verdict.value,
                    "missing": missing,
                },
            )
    table.notes = [
        "Seeds asked for: so that half the interval is within the threshold, by their spread. The "
        "interval of a rank correlation says how alike the seeds are, not how often so few arms "
        "would be in such an order by chance."
    ]
    return table


def headline(judged: list[Judged]) -> str:
    """How many claims have which verdict, in one sentence."""
    counts = {verdict: sum(each.verdict is verdict for each in judged) for verdict in Verdict}
    text = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    return f"Claims: {text} (of {len(judged)})."


def shown(endpoint: Endpoint, value: float) -> float:
    """An effect as it is reported, from the scale on which seeds are averaged."""
    match endpoint.effect:
        case Effect.relative:
            lower = endpoint.better is Better.lower
            return -math.expm1(-value) if lower else math.expm1(value)
        case Effect.speed_up:
            return math.exp(value)
        case _:
            return value


def effect_text(outcome: Outcome) -> str:
    """An effect with its interval, or what bounds it."""
    value, low, high = _shown_estimate(outcome)
    endpoint, found = outcome.endpoint, outcome.found
    if value is None:
        return NOT_RUN
    text = _text(endpoint, value, found.bound)
    if found.bound:
        return text
    if low is None or high is None:
        return f"{text} (n = {len(found.values)})"
    return f"{text} [{_number(endpoint, low)}, {_number(endpoint, high)}]"


def _shown_estimate(outcome: Outcome) -> tuple[float | None, float | None, float | None]:
    if outcome.estimate is None:
        return None, None, None
    value, low, high, _ = outcome.estimate
    ends = (None if end is None else shown(outcome.endpoint, end) for end in (low, high))
    return shown(outcome.endpoint, value), *ends  # type: ignore[return-value]


def _second_value(outcome: Outcome) -> float | None:
    second = outcome.found.second
    return second and shown(outcome.endpoint, fmean(second.values.values()))


def _second_text(outcome: Outcome) -> str:
    """Effect by the second extractor; a dash where none is asked for."""
    value, found = _second_value(outcome), outcome.found
    if value is None or found.second is None:
        asked = found.metric in SECOND and outcome.endpoint.generator
        return "not measured" if asked and found.values else "–"
    return _text(outcome.endpoint, value, found.second.bound)


def _beside(outcome: Outcome) -> str:
    if outcome.found.second is None:
        return ""
    return f" ({_second_text(outcome)}{OTHER_SIGN * outcome.contradicted})"


def _text(endpoint: Endpoint, value: float, bound: str = "") -> str:
    if bound == "unknown":
        return "not bounded"
    sign = BOUNDS.get(bound, "")
    unit = {Effect.relative: " %", Effect.speed_up: "×"}.get(endpoint.effect, "")
    return sign + _number(endpoint, value) + unit


def _number(endpoint: Endpoint, value: float) -> str:
    match endpoint.effect:
        case Effect.relative:
            return signed(100 * value, 1)
        case Effect.speed_up:
            return f"{value:.3g}"
        case _:
            return signed(value, 3)


def _size(endpoint: Endpoint) -> str:
    if endpoint.effect in (Effect.absolute, Effect.correlation):
        return f"{endpoint.threshold:g}"
    return f"{100 * endpoint.threshold:g} %"


def _what(outcome: Outcome) -> str:
    endpoint, found = outcome.endpoint, outcome.found
    text = label(found.metric or endpoint.metric[-1].removesuffix("_*"), found.sizes)
    if endpoint.effect is Effect.speed_up:
        text = f"speed-up to {text} at {endpoint.fraction:g} of the run"
    if endpoint.effect is Effect.correlation:
        text = f"correlation of {text} with {label(endpoint.against[-1].removesuffix('_*'))}"
    name = found.choices.get("generator", endpoint.generator)
    scaled = ", scaling fixed," if endpoint.scaling == Scaling.fixed.value else ""
    return f"{generator(name)}{scaled} {text}" if name else text


def _differing(judged: list[Judged]) -> list[str]:
    """What an endpoint has to name, since others were run on another: data, autoencoder."""
    found = [outcome.found.choices for each in judged for outcome in each.outcomes]
    names = ("data", "autoencoder")
    return [name for name in names if len({c[name] for c in found if name in c}) > 1]


def _comparison(outcome: Outcome, differing: list[str]) -> str:
    endpoint, found = outcome.endpoint, outcome.found
    number = len(found.arms) if found.values else "all"
    over = compared(str(endpoint.treatment), str(endpoint.control))
    parts = [f"{number} arms" if endpoint.effect is Effect.correlation else over]
    parts += [found.choices[name] for name in differing if name in found.choices]
    return ", ".join(parts)


def _minutes(outcomes: list[Outcome], grid: dict[str, Any], costs: pd.DataFrame) -> float:
    """Wall clock of the cells whose results were compared, each once."""
    spent = dict(zip(costs["instance"] + "@" + costs["stage"], costs["seconds"], strict=True))
    used = {name for outcome in outcomes for name in _cells(outcome, grid)}
    return math.fsum(spent.get(name, 0.0) for name in sorted(used)) / 60


def _cells(outcome: Outcome, grid: dict[str, Any]) -> Iterator[str]:
    found, generators = outcome.found, outcome.endpoint.generator is not None
    for stage, instance, cell in instances(grid):
        choices = {k: v for k, v in found.choices.items() if k not in ("generator", "scaling")}
        same = all(getattr(cell, name) == value for name, value in choices.items())
        mine = same and cell.seed in found.values
        if stage == "pretrain_autoencoder":
            # Once for all seeds.
            wanted = same
        elif stage in _OF_AUTOENCODER:
            wanted = mine and cell.arm in found.arms and (generators or stage != "cache_latents")
        else:
            ends = all(getattr(cell, k) == found.choices.get(k) for k in ("generator", "scaling"))
            wanted = stage in _OF_GENERATOR and mine and cell.arm in found.arms and ends
        if wanted:
            yield f"{instance}@{stage}"


def _scope(outcomes: list[Outcome], grid: dict[str, Any], cells: Cells) -> str:
    """Profile, images, autoencoders, generators and extractor behind a verdict."""
    prepared = next((c["protocol"] for (s, _), c in cells.items() if s == "prepare_data"), {})
    parts = []
    if {"image_size", "classes"} <= prepared.keys():
        parts = [f"{prepared['image_size']} px, {prepared['classes']} classes"]
    names = dict.fromkeys(o.found.choices["autoencoder"] for o in outcomes)
    parts += [autoencoder(name) for name in names]
    trained = {
        (cell.autoencoder, cell.generator): cell.backbone
        for stage, _, cell in instances(grid)
        if stage == "train_generator"
    }
    for outcome in outcomes:
        choices = outcome.found.choices
        key = (choices["autoencoder"], choices.get("generator"))
        if key in trained:
            name, _, target = generator(str(key[1])).partition(" ")
            size = trained[key]
            parts.append(f"{name}-{backbone(size)} {target}" if size else f"{name} {target}")
    parts += [ruler_name(o.found.metric) for o in outcomes]
    return f"{grid['profile']}: {', '.join(dict.fromkeys(p.strip() for p in parts if p))}"
