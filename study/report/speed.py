"""How much sooner an arm reaches the distances that the control has on its way."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from study import paths
from study.report.names import BOUNDS, CONTROL, FRECHET, NOT_RUN, PRETRAINED, first_present, label
from study.report.protocol import Cells
from study.report.results import where
from study.report.table import Row, Table, table_rows, with_control
from study.statistics import Curve, Reach, SpeedUp, mean_level, reach, speed_up

FRACTIONS = (0.25, 0.5, 1.0)
"""Of the control's run: the mean distance of its seeds there is a threshold, fixed in advance."""
UNITS = {"steps": "steps", "images": "images", "gflop": "FLOPs", "seconds": "seconds"}
COUNTED = {"": "", "_with_fine_tuning": " + fine-tuning", "_with_autoencoder": " + autoencoder"}
"""What is counted beside the generator's training: nothing, fine-tuning, pre-training as well."""
_SHOWN = ("steps", "gflop", "seconds", "gflop_with_autoencoder", "seconds_with_autoencoder")


def curves(records: pd.DataFrame) -> dict[int, Curve]:
    """Curves of a row's records of one metric, by seed."""
    found = {}
    for seed, line in records.dropna(subset=["step"]).sort_values("step").groupby("seed"):
        points = Curve(tuple(line["step"].astype(int)), tuple(line["value"]))
        found[int(seed)] = points  # type: ignore[arg-type]
    return found


def in_steps(
    treatment: dict[int, Curve], control: dict[int, Curve], fraction: float
) -> tuple[float, dict[int, tuple[Reach, Reach]]] | None:
    """The threshold, and by seed when control and treatment reach it; None without either.

    The threshold is of all the control's seeds, so that it is the same for every treatment.
    """
    seeds = sorted(treatment.keys() & control.keys())
    level = mean_level([*control.values()], fraction) if seeds else None
    if level is None:
        return None
    return level, {
        seed: (reach(control[seed], level), reach(treatment[seed], level)) for seed in seeds
    }


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run costs in one unit; None: not recorded."""

    per_step: float | None
    fine_tuning: float | None
    pre_training: float | None

    def at(self, moment: Reach, counted: str) -> Reach | None:
        """Cost by a moment; what is only bounded in steps is bounded likewise."""
        parts = {"": (), "_with_fine_tuning": (self.fine_tuning,)}
        fixed = parts.get(counted, (self.fine_tuning, self.pre_training))
        if self.per_step is None or None in fixed:
            return None
        return Reach(sum(filter(None, fixed), self.per_step * moment.amount), moment.censored)


class Costs:
    """Costs of the cells by what they are, from the metrics files."""

    def __init__(self, cells: Cells) -> None:
        self.cells: dict[tuple[Any, ...], dict[str, Any]] = {}
        for (stage, _), content in cells.items():
            names = ("data", "autoencoder", "arm", "seed", "generator", "scaling")
            key = (stage, *(content["cell"].get(name) for name in names))
            self.cells[key] = content

    def of(self, choices: dict[str, str], seed: int, unit: str) -> Spent:
        """Cost of a generator's run and of its autoencoder."""
        if unit == "steps":
            return Spent(1, 0, 0)
        ends = (choices.get("generator"), choices.get("scaling"))
        own = self._find("train_generator", choices, seed, choices["arm"], *ends)
        tuned = self._find("finetune_autoencoder", choices, seed, choices["arm"])
        made = self._find("pretrain_autoencoder", choices, paths.PRETRAINING_SEED, None)
        steps = own["parameters"]["train_generator"]["steps"] if own else None
        whole = _amount(own, "train_generator", unit)
        # An arm that trains nothing costs nothing; published weights were trained by others.
        fine = 0.0 if choices["arm"] == PRETRAINED else _amount(tuned, _FINE, unit)
        pre = 0.0 if made is None else _amount(made, "pretrain_autoencoder", unit)
        return Spent(None if whole is None or not steps else whole / steps, fine, pre)

    def _find(
        self, stage: str, choices: dict[str, str], seed: int, arm: str | None, *ends: str | None
    ) -> dict[str, Any] | None:
        rest = ends or (None, None)
        return self.cells.get(
            (stage, choices.get("data"), choices["autoencoder"], arm, seed, *rest)
        )


_FINE = "finetune_autoencoder"


def _amount(content: dict[str, Any] | None, section: str, unit: str) -> float | None:
    """What all training of a cell took in a unit; None where it was not recorded."""
    if content is None:
        return None
    training, cost = content["parameters"].get(section, {}), content["cost"]
    if unit == "seconds":
        return cost.get("training_seconds", cost["seconds"])
    steps, batch = training.get("steps"), training.get("batch_size")
    if steps is None or batch is None:
        return None
    if unit == "images":
        return float(steps * batch)
    work = cost.get("gflop_per_image")
    return None if work is None else work * steps * batch


def speed_up_table(grid: dict[str, Any], results: pd.DataFrame, cells: Cells) -> Table:
    """Factor by which arms reach the control's distances sooner, a row per arm and threshold."""
    results = where(results, "stage", "evaluate_generator")
    metric = first_present(results, FRECHET)
    name = label(metric, where(results, "metric", metric)["n"])
    table, spent = Table("speed_up"), Costs(cells)
    treated = [
        row for row in with_control(table_rows(grid, "evaluate_generator")) if row.arm != CONTROL
    ]
    for row in treated:
        ours, theirs = (curves(r.of(results, metric)) for r in (row, row.beside(CONTROL)))
        for fraction in FRACTIONS:
            found = in_steps(ours, theirs, fraction)
            pairs = found[1] if found else {}
            titles = row.titles(treated, len(pairs))
            table.add(
                titles | {f"{name} of {CONTROL} after": f"{fraction:g} of its run"},
                {**row.choices, "fraction": fraction, "threshold": found[0] if found else None},
            )
            absent = "not recorded" if pairs else "no checkpoint so early"
            absent = absent if ours.keys() & theirs.keys() else NOT_RUN
            for unit, moments in _moments(row, pairs, spent):
                _put(table, unit, speed_up(*moments) if moments else None, absent)
    table.notes = [
        f"Factor by which an arm reaches, sooner than arm `{CONTROL}`, the mean distance that "
        f"`{CONTROL}` has after a part of its run: geometric mean over seeds with Student-t 95 % "
        "interval. Distances between checkpoints by linear interpolation of logarithms. ≥, ≤: a "
        "curve does not cross the distance between its first and last checkpoint, so that the "
        "factor is bounded; nothing is extrapolated or left out.",
        "Steps are also images. + autoencoder: with fine-tuning and pre-training of either arm. "
        "FLOPs: three forward passes per training image, a discriminator left out. Seconds: of "
        "training where recorded, else of the whole stage.",
    ]
    return table


def _moments(
    row: Row, pairs: dict[int, tuple[Reach, Reach]], spent: Costs
) -> Iterator[tuple[str, tuple[list[Reach], list[Reach]] | None]]:
    for unit in UNITS:
        for counted in COUNTED if unit != "steps" else ("",):
            arms: list[list[Reach]] = []
            for side, arm in enumerate((row.beside(CONTROL), row)):
                moments = (
                    spent.of(arm.choices, seed, unit).at(pair[side], counted)
                    for seed, pair in pairs.items()
                )
                arms.append([moment for moment in moments if moment])
            whole = pairs and all(len(moments) == len(pairs) for moments in arms)
            yield f"{unit}{counted}", (arms[0], arms[1]) if whole else None


def _put(table: Table, unit: str, found: SpeedUp | None, absent: str) -> None:
    numbers = (found.value, found.bound, found.low, found.high) if found else (absent, *[None] * 3)
    names = (unit, f"{unit}_bound", f"{unit}_low", f"{unit}_high", f"{unit}_seeds")
    seeds = " ".join(f"{factor:.6g}" for factor in found.factors) if found else None
    table.numbers[-1] |= dict(zip(names, (*numbers, seeds), strict=True))
    if unit in _SHOWN:
        base, _, counted = unit.partition("_")
        title = (
            UNITS[base][:1].upper() + UNITS[base][1:] + COUNTED[f"_{counted}" if counted else ""]
        )
        table.shown[-1][title] = speed_up_text(found) if found else absent


def speed_up_text(found: SpeedUp) -> str:
    """A factor with its interval, or what bounds it."""
    if found.value is None:
        return "not bounded"
    sign = BOUNDS.get(found.bound, "")
    text = f"{sign}{found.value:.3g}×"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{found.low:.3g}, {found.high:.3g}]"
