"""The frozen backbone, made ready to compute in a number format."""

import torch

from hcl.models.fp8 import multiply_in_fp8
from hcl.models.frozen import freeze
from hcl.models.linear import with_plain_linear
from hcl.models.pm_vit import PMViT
from hcl.precision import Precision, forbid_tf32, require_support


def prepare(backbone: PMViT, precision: Precision, device: torch.device) -> PMViT:
    """A backbone with its weights loaded, on its device, ready for a number format.

    It has layers of its own and shares the parameters: the given one, whatever it is ready for, stays as it
    is, since others may compute with it. Whatever computes comes by here, so that fp32 is float32 everywhere
    (`forbid_tf32`).

    Raises:
        ValueError: the device does not compute in it.
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
