"""The frozen backbone, made ready to compute in a number format."""

import torch

from hcl.models.fp8 import multiply_in_fp8
from hcl.models.frozen import freeze
from hcl.models.pm_vit import PMViT
from hcl.precision import Precision, forbid_tf32, require_support


def prepare(backbone: PMViT, precision: Precision, device: torch.device) -> None:
    """Make a backbone with its weights loaded, on its device, ready for a number format.

    Whatever computes comes by here, so that fp32 is float32 everywhere (`forbid_tf32`).

    Raises:
        ValueError: the device does not compute in it.
    """
    require_support(device, precision)
    forbid_tf32()
    if precision == "fp8":
        multiply_in_fp8(backbone)
    elif precision == "bf16":
        freeze(backbone, torch.bfloat16)
    elif device.type == "cpu":
        freeze(backbone, torch.float32)
