"""Tables by transform: equivariance error in its variants, and decoded transformed latents."""

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from study.report.names import PERCEPTUAL, label
from study.report.results import where
from study.report.table import Row, Table, table_rows

FORMS = {"equivariance_error": "variance", "equivariance_error_paper": "paper's"}
"""What the error is relative to."""
VARIANTS = {
    "": ("mean", "bilinear"),
    "sampled": ("sampled", "bilinear"),
    "bicubic": ("mean", "bicubic"),
    "antialiased": ("mean", "bilinear, antialias"),
    "bicubic_antialiased": ("mean", "bicubic, antialias"),
}
"""Latents and resampling of each suffix of a metric."""
_TRANSFORM = re.compile(r"_(turn_(?P<degrees>\d+)|scale_(?P<scale>[\d.]+))$")
_PREFIX = "transformed_"
_MEASURES = ("rfid", "rfd_inception", "rfd_in_domain", "psnr_db", *PERCEPTUAL)


def equivariance_table(grid: dict[str, Any], results: pd.DataFrame) -> Table:
    """Equivariance error, a row per arm, variant and form, a column per transform."""
    results = where(results, "stage", "evaluate_autoencoder")
    table, rows = Table("equivariance"), table_rows(grid, "evaluate_autoencoder")
    columns = _columns(results)
    for row in rows:
        ran = len(row.of(results, "equivariance_error"))
        for variant in _variants(row, results):
            for metric, form in FORMS.items():
                latents, resampling = VARIANTS[variant]
                titles = {"Latents": latents, "Resampling": resampling, "Over": form}
                table.add(
                    {**row.titles(rows, ran), **titles},
                    {**row.choices, "seeds_run": ran, "variant": variant or "rule", "form": form},
                )
                _put(table, row, results, columns, metric, f"_{variant}" if variant else "", ran)
    table.notes = [
        "Mean squared difference of tau E(x) and E(tau x), over the variance of the latents or, in "
        "the paper's form, over their squared norm (mean of the ratio over images). Resampling is "
        "that of images and latents; turns do not resample (–).",
    ]
    return table


def transformed_table(grid: dict[str, Any], results: pd.DataFrame) -> Table:
    """D(tau E(x)) against tau x, a row per measure and arm, a column per transform."""
    results = where(results, "stage", "evaluate_autoencoder")
    table, rows = Table("transformed"), table_rows(grid, "evaluate_autoencoder")
    columns = _columns(results)
    present = set(results["metric"])
    measures = [m for m in _MEASURES if f"{_PREFIX}{m}_rotation" in present] or ["psnr_db"]
    for measure in measures:
        metric = f"{_PREFIX}{measure}"
        sizes = where(results, "metric", f"{metric}_rotation")["n"]
        for row in rows:
            ran = len(row.of(results, "equivariance_error"))
            table.add(
                {"Measure": label(metric, sizes), **row.titles(rows, ran)},
                {**row.choices, "seeds_run": ran, "measure": measure},
            )
            _put(table, row, results, columns, metric, "", ran)
    table.notes = [
        "Images decoded from transformed latents, against the transformed images: the distance of "
        "the two sets, and means over pairs. Mean latents, bilinear without antialias.",
    ]
    return table


def _put(
    table: Table,
    row: Row,
    results: pd.DataFrame,
    columns: dict[str, str],
    metric: str,
    suffix: str,
    ran: int,
) -> None:
    for name, title in columns.items():
        records = row.of(results, f"{metric}_{name}{suffix}")
        table.put(title, name, records, ran=ran > 0, absent="–")


def _columns(results: pd.DataFrame) -> dict[str, str]:
    """Titles by transform: turns, their mean, scales, theirs."""
    turns, scales = set(), set()
    for metric in set(results["metric"]):
        found = _TRANSFORM.search(metric)
        if found and metric.startswith("equivariance_error_"):
            turns |= {int(found["degrees"])} if found["degrees"] else set()
            scales |= {found["scale"]} if found["scale"] else set()
    return {
        **{f"turn_{degrees}": f"{degrees}°" for degrees in sorted(turns)},
        "rotation": "turns",
        **{f"scale_{scale}": f"×{scale}" for scale in sorted(scales, key=float)},
        "scale": "scales",
    }


def _variants(row: Row, results: pd.DataFrame) -> Iterable[str]:
    """Variants that any arm of the row's autoencoder has."""
    own = where(results, "autoencoder", row.choices["autoencoder"])
    present = set(own["metric"])
    return [v for v in VARIANTS if not v or f"equivariance_error_scale_{v}" in present]
