"""The frozen backbone's linear layers in FP8."""

import torch
from torch import Tensor, nn

from hcl.models.linear import Linear
from hcl.models.pm_vit import PMViT
from hcl.precision import Precision, forbid_tf32, require_support
from kernels.linear.fp8 import fp8_linear, quantised


class FP8Linear(Linear):
    """A trained linear layer that multiplies in FP8; its parameters stay, under their names."""

    weight_fp8: Tensor
    weight_scale: Tensor

    def __init__(self, trained: Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = trained.in_features, trained.out_features
        self.weight, self.bias = trained.weight, trained.bias
        values, scale = quantised(trained.weight.detach())
        self.register_buffer("weight_fp8", values, persistent=False)
        self.register_buffer("weight_scale", scale, persistent=False)

    @torch.no_grad()
    def forward(self, input: Tensor) -> Tensor:
        """Tokens (..., in_features) to tokens (..., out_features), bfloat16."""
        return fp8_linear(input, self.weight_fp8, self.weight_scale, self.bias)


def multiply_in_fp8(backbone: PMViT) -> None:
    """Have the linear layers of a backbone's blocks multiply in FP8, weights rounded once, tokens each time.

    The patch embedding and the row of attention that tells the foreground stay as they were.
    """
    for parent in [*backbone.vit.blocks.modules()]:
        for name, layer in parent.named_children():
            if isinstance(layer, Linear):
                setattr(parent, name, FP8Linear(layer))


def prepare(backbone: PMViT, precision: Precision, device: torch.device) -> None:
    """Make a backbone with its weights loaded ready to compute in a number format on a device.

    Whatever computes comes by here, so that fp32 is float32 everywhere (`forbid_tf32`).

    Raises:
        ValueError: the device does not compute in it.
    """
    require_support(device, precision)
    forbid_tf32()
    if precision == "fp8":
        multiply_in_fp8(backbone)
