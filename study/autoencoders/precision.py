"""Precision of network passes."""

import torch

from study.config import Precision


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Context in which convolutions and matrix products run in bf16; for fp32 it does nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bf16)
