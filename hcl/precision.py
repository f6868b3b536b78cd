"""Number formats of the forward pass."""

from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def mixed(device: torch.device, precision: Precision) -> torch.autocast:
    """Matrix products in bfloat16 for ``bf16``; everything as it is for ``fp32``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
