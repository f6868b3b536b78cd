"""The frozen backbone, made ready to compute in a number format."""

import torch

from hcl.models.fp8 import multiply_in_fp8
from hcl.models.frozen import freeze
from hcl.models.pm_vit import PMViT
from hcl.precision import Precision, require_support


def prepare(backbone: PMViT, precision: Precision, device: torch.device) -> None:
    """Make a backbone with its weights loaded, on its device, ready for a number format.

    Raises:
        ValueError: the device does not compute in it.
    """
    require_support(device, precision)
    if precision == "fp8":
        multiply_in_fp8(backbone)
    elif precision == "bf16":
        freeze(backbone, torch.bfloat16)
    elif device.type == "cpu":
        freeze(backbone, torch.float32)
