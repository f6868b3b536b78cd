"""The linear layer of all models."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.linear import linear


class Linear(nn.Linear):
    """torch's linear layer, multiplied by the library that is fastest on the processor at hand."""

    def forward(self, input: Tensor) -> Tensor:
        """Tokens (..., in_features) to tokens (..., out_features)."""
        return linear(input, self.weight, self.bias)

    def activated(self, input: Tensor) -> Tensor:
        """The same with GELU, which a layer that is ready for it takes in the same pass."""
        return F.gelu(self(input))


def replace_linear(module: nn.Module, make: Callable[[Linear], Linear]) -> None:
    """Put what ``make`` gives in the place of every linear layer within a module."""
    for parent in [*module.modules()]:
        for name, layer in parent.named_children():
            if isinstance(layer, Linear):
                setattr(parent, name, make(layer))
