"""The report's main tables: autoencoders, generators, costs."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from study.report.names import (
    CODEBOOK,
    CONTROL,
    FRECHET,
    HEADLINE,
    INTRINSIC,
    KERNEL,
    NOT_RUN,
    OF_RECONSTRUCTIONS,
    QUALITY,
    SECOND,
    TO_RECONSTRUCTIONS,
    first_present,
    is_distance,
    label,
)
from study.report.results import instances, where
from study.report.table import (
    Row,
    Table,
    gain_text,
    minutes_text,
    of_text,
    table_rows,
    with_control,
)
from study.statistics import Estimate, paired_gain


def autoencoder_table(grid: dict[str, Any], results: pd.DataFrame) -> Table:
    """Reconstruction, equivariance error and latents, one row per autoencoder and arm."""
    results = where(results, "stage", "evaluate_autoencoder")
    metrics = measured(HEADLINE, results) or ["psnr_db", "equivariance_error"]
    titles = {name: label(name, where(results, "metric", name)["n"]) for name in metrics}
    table, rows = Table("autoencoders"), table_rows(grid, "evaluate_autoencoder")
    for row in rows:
        ran = max(len(row.of(results, metric)) for metric in metrics)
        table.add(row.titles(rows, ran), {**row.choices, "seeds": len(row.seeds), "seeds_run": ran})
        for metric, title in titles.items():
            absent = "–" if metric == CODEBOOK else "not measured"
            table.put(title, metric, row.of(results, metric), ran=ran > 0, absent=absent)
    table.notes = [
        *_sizes(results, metrics),
        "Higher is better for PSNR and SSIM, lower for distances and errors; the latents' own "
        "measures have no better direction. ± is half a Student-t 95 % interval. The equivariance "
        "error is that of mean latents, bilinear without antialias, relative to the variance of "
        "the latents or, in the paper's form, to their squared norm. Beyond ±3: share of latent "
        "values. Intrinsic dim.: TwoNN on that many images.",
    ]
    return table


def generator_table(grid: dict[str, Any], results: pd.DataFrame) -> Table:
    """Distances at the first and last checkpoint and the gain over the control."""
    results = where(results, "stage", "evaluate_generator")
    main, kernel = first_present(results, FRECHET), first_present(results, KERNEL)
    name, kernel_name = (
        label(metric, where(results, "metric", metric)["n"]) for metric in (main, kernel)
    )
    table, rows = Table("generators"), table_rows(grid, "evaluate_generator")
    for row in rows:
        distances, start = row.of(results, main), row.of(results, f"{main}_random_latents")
        last, first = checkpoint(distances, -1), checkpoint(distances, 0)
        ran = len(last)
        step = int(last["step"].iloc[0]) if ran else NOT_RUN
        table.add(
            {**row.titles(rows, ran), "Steps": f"{step:,}" if ran else NOT_RUN},
            {**row.choices, "seeds": len(row.seeds), "seeds_run": ran, "step": step},
        )
        table.put(name, main, last, ran=ran > 0)
        table.put(kernel_name, kernel, checkpoint(row.of(results, kernel), -1), ran=ran > 0)
        table.put(f"{name}, first checkpoint", f"{main}_first", first, ran=ran > 0)
        table.put(f"{name}, random latents", f"{main}_random_latents", start, ran=ran > 0)
        raw, change = row.of(results, f"{main}_raw"), last_doubling(distances)
        table.put(f"{name}, raw weights", f"{main}_raw", raw, ran=ran > 0, absent="–")
        table.put("Last doubling [%]", f"{main}_last_doubling", change, ran=ran > 0, absent="–")
        _put_gain(table, row, gain_over_control(row, results, main), row in with_control(rows))
    if not rows:
        return table
    table.notes = [
        f"Gain: share by which {name} at the last checkpoint is below that of arm `{CONTROL}`, "
        "paired by seed (negative: worse), with Student-t 95 % interval over seeds.",
        "Random latents: noise through the decoder, what a generator that learned nothing gives. "
        "Lower is better; ± is half a Student-t 95 % interval over seeds. Raw weights: samples of "
        "the trained weights of the last checkpoint, all others are of their moving average. Last "
        f"doubling: change of {name} over the last half of the run, which says how far it is from "
        "rest.",
    ]
    return table


def quality_table(grid: dict[str, Any], results: pd.DataFrame) -> Table:
    """Everything that is measured of the last checkpoint's samples; held-out images first."""
    generated = where(results, "stage", "evaluate_generator")
    real = where(results, "stage", "reference_statistics")
    table, rows = Table("sample_quality"), table_rows(grid, "evaluate_generator")
    chosen = [first_present(results, names) for names in QUALITY]
    titles = {name: label(name, where(generated, "metric", name)["n"]) for name in chosen}
    if rows:
        first = {
            title: "held-out images" if i == 0 else "–"
            for i, title in enumerate(rows[0].titles(rows, 0))
        }
        table.add(first, {"arm": "held_out"})
    for name, title in titles.items() if rows else ():
        absent = "–" if len(real) else NOT_RUN
        table.put(title, name, where(real, "metric", f"{name}_floor"), ran=True, absent=absent)
    for row in rows:
        ends = {name: checkpoint(row.of(generated, name), -1) for name in chosen}
        ran = len(ends[chosen[0]])
        table.add(row.titles(rows, ran), {**row.choices, "seeds_run": ran})
        for name, title in titles.items():
            table.put(title, name, ends[name], ran=ran > 0)
    if not rows:
        return table
    counts = sorted({int(n) for n in where(real, "metric", f"{chosen[0]}_floor")["n"].dropna()})
    table.notes = [
        "First row: held-out images in the place of samples, the best there is"
        + (f" (n = {', '.join(f'{n:,}' for n in counts)})" if counts else "")
        + ". To reconstructions: of training images by the arm's own autoencoder, which leaves the "
        "decoder out; rFD of training images: theirs to the training images, the least that the "
        "arm's generators can reach. n → ∞: linear fit in 1/n. Lower is better up to there; higher "
        "is better for the score, precision, recall, density and coverage. Nearest ratio: mean "
        "distance of samples to the nearest training image over that of held-out images, about 1 "
        "for new images and towards 0 for copies. Those of earlier checkpoints are in "
        "`results.csv`.",
    ]
    return table


def cost_table(grid: dict[str, Any], costs: pd.DataFrame) -> Table:
    """Time of each stage."""
    table = Table("costs")
    planned: dict[str, int] = {}
    for stage, _, _ in instances(grid):
        planned[stage] = planned.get(stage, 0) + 1
    for stage, cells in planned.items():
        minutes = [seconds / 60 for seconds in where(costs, "stage", stage)["seconds"]]
        ran, total = len(minutes), math.fsum(minutes)
        times = [total, total / ran] if ran else [NOT_RUN, NOT_RUN]
        texts = [minutes_text(t) if isinstance(t, float) else t for t in times]
        shown = [stage, of_text(ran, cells), *texts]
        titles = ("Stage", "Cells run", "Total [min]", "Per cell [min]")
        names = ("stage", "cells", "cells_run", "minutes", "minutes_per_cell")
        table.add(
            dict(zip(titles, shown, strict=True)),
            dict(zip(names, [stage, cells, ran, *times], strict=True)),
        )
    total = minutes_text(math.fsum(costs["seconds"]) / 60)
    table.notes = [
        f"All finished cells together: {total} minutes of wall clock, one after the other; "
        "each cell's own are in `costs.csv`."
    ]
    return table


def checkpoint(records: pd.DataFrame, place: int) -> pd.DataFrame:
    """The records of a metric at the first (0) or last (-1) checkpoint."""
    steps = sorted(records["step"].dropna().unique())
    return where(records, "step", *steps[place:][:1])


def last_doubling(records: pd.DataFrame) -> pd.DataFrame:
    """Change in percent from the checkpoint at half of the last one's step, one per seed."""
    last, step = checkpoint(records, -1), records["step"].max()
    before = dict(where(records, "step", step / 2)[["seed", "value"]].to_numpy())
    last = last[last["seed"].isin(before)]
    changes = [100 * (v / before[s] - 1) for s, v in zip(last["seed"], last["value"], strict=True)]
    return last.assign(value=changes)


def gain_over_control(
    row: Row, results: pd.DataFrame, metric: str, control: str = CONTROL
) -> Estimate | None:
    """Gain of a row over a control arm at the last checkpoint; None without common seeds."""
    return gain_of(last_pairs(row, results, metric, control))


def last_pairs(
    row: Row, results: pd.DataFrame, metric: str, control: str
) -> list[tuple[float, float]]:
    """Values of a row and of a control arm at the last checkpoint, for the seeds both have."""
    arm, other = (checkpoint(r.of(results, metric), -1) for r in (row, row.beside(control)))
    return paired(arm, other)


def gain_of(pairs: list[tuple[float, float]]) -> Estimate | None:
    """Gain by pairs of treatment and control, all positive; None without any such."""
    if not pairs or min(min(pair) for pair in pairs) <= 0:
        return None
    return paired_gain([t for t, _ in pairs], [c for _, c in pairs])


def distances(results: pd.DataFrame) -> list[str]:
    """The main distance and that of the second extractor, as far as they were measured."""
    main, present = first_present(results, FRECHET), set(results["metric"])
    return [name for name in (main, SECOND.get(main, "")) if name in present]


def measures(results: pd.DataFrame) -> list[str]:
    """The distances, and the two that tell decoding apart, as far as they were measured."""
    present = set(results["metric"])
    decoding = (first_present(results, m) for m in (TO_RECONSTRUCTIONS, OF_RECONSTRUCTIONS))
    return [*distances(results), *(name for name in decoding if name in present)]


def paired(treatment: pd.DataFrame, control: pd.DataFrame) -> list[tuple[float, float]]:
    """Values of one metric in two rows, for the seeds that both have."""
    t, c = (dict(zip(rows["seed"], rows["value"], strict=True)) for rows in (treatment, control))
    return [(t[seed], c[seed]) for seed in sorted(t.keys() & c.keys())]


def measured(names: Iterable[str], results: pd.DataFrame) -> list[str]:
    """Those of some metrics that there are; of the intrinsic dimensions the one of most images."""
    present = set(results["metric"])
    sizes = [int(name.removeprefix(INTRINSIC)) for name in present if name.startswith(INTRINSIC)]
    most = {INTRINSIC: f"{INTRINSIC}{max(sizes, default=0)}"}
    return [name for name in (most.get(n, n) for n in names) if name in present]


def _put_gain(table: Table, row: Row, gain: Estimate | None, controlled: bool) -> None:
    absent = NOT_RUN if controlled else "no control"
    if row.arm == CONTROL and table.numbers[-1]["seeds_run"]:
        absent = "reference"
    known = gain if gain and row.arm != CONTROL else None
    numbers = known or (absent, None, None, None)
    names = ("gain", "gain_low", "gain_high", "gain_n")
    table.numbers[-1] |= dict(zip(names, numbers, strict=True))
    table.shown[-1][f"Gain over {CONTROL}"] = gain_text(known) if known else absent


def _sizes(results: pd.DataFrame, metrics: list[str]) -> Iterator[str]:
    """How many images, once where it is the same for all that do not have it in their name."""
    groups: dict[int, list[str]] = {}
    for metric in metrics:
        if not is_distance(metric) and not metric.startswith(INTRINSIC):
            for n in where(results, "metric", metric)["n"].dropna().unique():
                groups.setdefault(int(n), []).append(label(metric))
    for n, names in groups.items():
        which = f": {'; '.join(names)}" if len(groups) > 1 else ""
        yield f"n = {n:,} held-out images{which}."
