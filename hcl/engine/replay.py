"""A frozen network's passes as CUDA graphs: the host launches one graph instead of some hundred kernels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hcl.precision import product_dtype

MOST_GRAPHS = 4
"""Each graph keeps its own input and output; memory for what is computed between them is shared.

Four image sizes need no more position tables than a backbone keeps (`hcl.models.pm_vit.MOST_TABLES`), so no
table that a graph reads is dropped.
"""

Function = Callable[..., Any]


def replay(module: nn.Module) -> None:
    """Replay the passes of a module that takes one argument, in place; its state dict does not change."""
    module.forward = Replayed(module.forward)


class Replayed:
    """A function of one tensor on a GPU, recorded at the second call with a shape, then replayed.

    The result is a copy, so that the next pass may overwrite the graph's output. The function is called
    directly if gradients are enabled, while a larger graph is recorded, and on devices other than a GPU.

    Args:
        function: computes without gradients. Its result depends only on its argument and on data that never
            changes. It must not wait for the device, and no tensor's shape may depend on data.
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
        """Record a graph, unless the shape is new: its first pass compiles what there is to compile."""
        if key not in self._seen or len(self._graphs) == MOST_GRAPHS:
            self._seen.add(key)
            return None
        pool = next((graph.pool for graph in self._graphs.values()), None)
        self._graphs[key] = Graph(self._function, x, pool=pool)
        return self._graphs[key]


class Graph:
    """One call of a function as a CUDA graph.

    Args:
        function: function of tensors; it must have been called with such tensors before.
        tensors: arguments, which give the shapes.
        pool: memory pool of another graph, with which memory between input and output is shared.
    """

    def __init__(self, function: Function, *tensors: Tensor, pool: Any = None) -> None:
        self._inputs = [tensor.clone() for tensor in tensors]
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, which decode images, may allocate memory meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._result = function(*self._inputs)

    @property
    def pool(self) -> Any:
        """The graph's memory pool."""
        return self._graph.pool()

    def __call__(self, *tensors: Tensor) -> Any:
        """The function's result, which the next call overwrites."""
        torch._foreach_copy_(self._inputs, list(tensors))
        self._graph.replay()
        return self._result
