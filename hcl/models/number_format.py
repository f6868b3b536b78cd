"""Preparing the frozen backbone for a number format."""

import torch

from hcl.models.fp8 import multiply_in_fp8
from hcl.models.frozen import freeze
from hcl.models.linear import with_plain_linear
from hcl.models.pm_vit import PMViT
from hcl.precision import Precision, forbid_tf32, require_support


def prepare(backbone: PMViT, precision: Precision, device: torch.device) -> PMViT:
    """Prepare a loaded backbone on its device for a number format.

    The result has linear layers of its own and shares the parameters. The given backbone, whatever it was
    prepared for, stays as it is, since others may compute with it. Training, scoring and inference all call
    this function, so fp32 is float32 in all of them (`forbid_tf32`).

    Raises:
        ValueError: the device does not support the number format.
    """
    require_support(device, precision)
    forbid_tf32()
    ready = with_plain_linear(backbone)
    if precision == "fp8":
        multiply_in_fp8(ready)
    elif precision == "bf16":
        freeze(ready, torch.bfloat16)
    elif device.type == "cpu":
        freeze(ready, torch.float32)
    return ready
