"""The linear layer of all models."""

from collections.abc import Callable
from copy import deepcopy
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.linear import linear

M = TypeVar("M", bound=nn.Module)


class Linear(nn.Linear):
    """torch's linear layer, multiplied by the library that is fastest on the processor at hand."""

    def forward(self, input: Tensor) -> Tensor:
        """Tokens (..., in_features) to tokens (..., out_features)."""
        return linear(input, self.weight, self.bias)

    def activated(self, input: Tensor) -> Tensor:
        """The same with GELU, which a layer that is ready for it takes in the same pass."""
        return F.gelu(self(input))


class TrainedLinear(Linear):
    """A linear layer with the parameters of a trained one, which stay under their names."""

    def __init__(self, trained: Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = trained.in_features, trained.out_features
        self.weight, self.bias = trained.weight, trained.bias


def with_plain_linear(module: M) -> M:
    """A module with the same parameters and buffers, but linear layers of its own, which are plain ones."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    layers = [layer for layer in module.modules() if isinstance(layer, Linear)]
    return deepcopy(module, {**shared, **{id(layer): TrainedLinear(layer) for layer in layers}})


def replace_linear(module: nn.Module, make: Callable[[Linear], Linear]) -> None:
    """Put what ``make`` gives in the place of every linear layer within a module."""
    for parent in [*module.modules()]:
        for name, layer in parent.named_children():
            if isinstance(layer, Linear):
                setattr(parent, name, make(layer))
