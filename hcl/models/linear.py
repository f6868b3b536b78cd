"""The linear layer of all models."""

from collections.abc import Callable
from copy import deepcopy
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.linear import linear

M = TypeVar("M", bound=nn.Module)


class Linear(nn.Linear):
    """torch's linear layer, computed by the library that is fastest on the processor at hand."""

    def forward(self, input: Tensor) -> Tensor:
        """Tokens (..., in_features) to tokens (..., out_features)."""
        return linear(input, self.weight, self.bias)

    def activated(self, input: Tensor) -> Tensor:
        """The same, followed by GELU; a prepared layer computes both in one pass."""
        return F.gelu(self(input))


class TrainedLinear(Linear):
    """A linear layer that shares the parameters of a trained one, under the same names."""

    def __init__(self, trained: Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = trained.in_features, trained.out_features
        self.weight, self.bias = trained.weight, trained.bias


def with_plain_linear(module: M) -> M:
    """Copy a module, sharing parameters and buffers, but with plain linear layers of its own."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    layers = [layer for layer in module.modules() if isinstance(layer, Linear)]
    return deepcopy(module, {**shared, **{id(layer): TrainedLinear(layer) for layer in layers}})


def replace_linear(module: nn.Module, make: Callable[[Linear], Linear]) -> None:
    """Replace every linear layer within a module by what ``make`` returns for it."""
    for parent in [*module.modules()]:
        for name, layer in parent.named_children():
            if isinstance(layer, Linear):
                setattr(parent, name, make(layer))
