"""The frozen backbone's linear layers in FP8."""

import torch
from torch import Tensor

from hcl.models.linear import Linear, TrainedLinear, replace_linear
from hcl.models.pm_vit import PMViT
from kernels.linear.fp8 import fp8_linear, quantised


class FP8Linear(TrainedLinear):
    """A trained linear layer that multiplies in FP8."""

    weight_fp8: Tensor
    weight_scale: Tensor

    def __init__(self, trained: Linear) -> None:
        super().__init__(trained)
        values, scale = quantised(trained.weight.detach())
        self.register_buffer("weight_fp8", values, persistent=False)
        self.register_buffer("weight_scale", scale, persistent=False)

    @torch.no_grad()
    def forward(self, input: Tensor) -> Tensor:
        """Tokens (..., in_features) to tokens (..., out_features), bfloat16."""
        return fp8_linear(input, self.weight_fp8, self.weight_scale, self.bias)


def multiply_in_fp8(backbone: PMViT) -> None:
    """Make the linear layers of a backbone's blocks multiply in FP8.

    Weights are rounded once, tokens in every call. The patch embedding and the attention row from which the
    foreground is computed stay as they were.
    """
    replace_linear(backbone.vit.blocks, FP8Linear)
