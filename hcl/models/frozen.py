"""The frozen backbone's linear layers: weights are rounded and laid out once, not in every call."""

import torch
from torch import Tensor, nn

from hcl.models.linear import Linear, TrainedLinear, replace_linear
from hcl.models.pm_vit import PMViT
from hcl.precision import product_dtype
from kernels.linear import frozen, linear, linear_gelu
from kernels.linear.frozen import FrozenWeight


class FrozenLinear(TrainedLinear):
    """A trained linear layer, prepared for products in one dtype.

    Autocast would round a weight without gradient in every call. If the products are in another dtype, or a
    gradient is needed, this layer computes as the plain one.

    Args:
        trained: the layer, on its device.
        dtype: dtype of the products.
    """

    weight_rounded: Tensor
    bias_rounded: Tensor

    def __init__(self, trained: Linear, dtype: torch.dtype) -> None:
        super().__init__(trained)
        self.dtype = dtype
        self._derive()
        self.register_load_state_dict_post_hook(_derive_anew)

    def _derive(self) -> None:
        """Compute everything that is derived from the parameters."""
        self.register_buffer("weight_rounded", self.weight.detach().to(self.dtype), persistent=False)
        self.register_buffer("bias_rounded", self.bias.detach().to(self.dtype), persistent=False)
        on_cpu = self.weight.device.type == "cpu" and frozen.runs_in(self.dtype)
        self._laid_out = FrozenWeight(self.weight_rounded, self.bias_rounded) if on_cpu else None

    def forward(self, input: Tensor) -> Tensor:
        """Tokens (..., in_features) to tokens (..., out_features)."""
        return self._product(input) if self._fits(input) else super().forward(input)

    def activated(self, input: Tensor) -> Tensor:
        """The same, followed by GELU."""
        return self._product(input, gelu=True) if self._fits(input) else super().activated(input)

    def _fits(self, input: Tensor) -> bool:
        return product_dtype(input) == self.dtype and not (torch.is_grad_enabled() and input.requires_grad)

    def _product(self, input: Tensor, *, gelu: bool = False) -> Tensor:
        input = input.to(self.dtype)
        # The layer may have been moved to another device since.
        on_cpu = input.device.type == "cpu" and not torch.compiler.is_compiling()
        if on_cpu and self._laid_out is not None:
            return self._laid_out.product(input, gelu=gelu)
        product = linear_gelu if gelu else linear
        return product(input, self.weight_rounded, self.bias_rounded)


def _derive_anew(module: nn.Module, _: object) -> None:
    assert isinstance(module, FrozenLinear)
    module._derive()


def freeze(backbone: PMViT, dtype: torch.dtype) -> None:
    """Prepare the linear layers of a backbone's blocks for products in a dtype."""
    replace_linear(backbone.vit.blocks, lambda layer: FrozenLinear(layer, dtype))
