"""The few measures of a cell that `dvc metrics show` prints."""

from collections.abc import Iterable, Mapping
from typing import Any

SCORES = (
    *("fid", "fd_inception", "fd_in_domain", "kid_inception", "kid_in_domain"),
    *("precision_inception", "precision_in_domain", "recall_inception", "recall_in_domain"),
    *("rfid", "rfd_inception", "rfd_in_domain", "psnr_db", "ssim", "lpips"),
    *("perceptual_in_domain", "equivariance_error", "latent_std"),
)
"""Metrics by name, in their order."""


def scores(records: Iterable[Mapping[str, Any]]) -> str:
    """Those of a cell's records at the last checkpoint, in YAML; empty where it has none."""
    last = {record["metric"]: record["value"] for record in records}
    return "".join(f"{name}: {last[name]:.6g}\n" for name in SCORES if name in last)
