"""A frozen network's passes as CUDA graphs: the host launches one instead of some hundred kernels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hcl.precision import product_dtype

MOST_GRAPHS = 4
"""Each keeps an input and an output; what lies between is shared.

Four sizes of images have no more tables of positions than a backbone keeps (`hcl.models.pm_vit.MOST_TABLES`),
so that none that a graph reads is given up.
"""

Function = Callable[..., Any]


def replay(module: nn.Module) -> None:
    """Have the passes of a module of one argument replayed, in place; its state dict stays as it is."""
    module.forward = Replayed(module.forward)


class Replayed:
    """A function of one tensor on a GPU, recorded when a shape comes for the second time, then replayed.

    What it gives is a copy, so that the next pass may write where it lay. Where gradients are wanted, within
    the recording of a larger graph, and elsewhere than on a GPU, the function is called as it is.

    Args:
        function: without gradients; its tensors depend on its argument and on what never changes. It must
            not wait for the device, nor give tensors of shapes that depend on data.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._seen: set[object] = set()
        self._graphs: dict[object, Graph] = {}

    def __call__(self, x: Tensor) -> Any:
        """The function's result for x."""
        if not x.is_cuda or torch.is_grad_enabled() or torch.cuda.is_current_stream_capturing():
            return self._function(x)
        key = (x.shape, x.dtype, product_dtype(x))
        graph = self._graphs.get(key) or self._recorded(key, x)
        return self._function(x) if graph is None else tree_map_only(Tensor, Tensor.clone, graph(x))

    def _recorded(self, key: object, x: Tensor) -> "Graph | None":
        """A new graph, unless the shape is new: its first pass compiles what there is to compile."""
        if key not in self._seen or len(self._graphs) == MOST_GRAPHS:
            self._seen.add(key)
            return None
        pool = next((graph.pool for graph in self._graphs.values()), None)
        self._graphs[key] = Graph(self._function, x, pool=pool)
        return self._graphs[key]


class Graph:
    """One call of a function as a CUDA graph.

    Args:
        function: of tensors; it was called with such before.
        tensors: arguments, for their shapes.
        pool: of another graph; memory between input and output is shared with it.
    """

    def __init__(self, function: Function, *tensors: Tensor, pool: Any = None) -> None:
        self._inputs = [tensor.clone() for tensor in tensors]
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, which decode images, may allocate meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._result = function(*self._inputs)

    @property
    def pool(self) -> Any:
        """Where the graph's memory comes from."""
        return self._graph.pool()

    def __call__(self, *tensors: Tensor) -> Any:
        """The function's result, which lies where the next call will write its own."""
        torch._foreach_copy_(self._inputs, list(tensors))
        self._graph.replay()
        return self._result
