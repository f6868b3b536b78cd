"""A GPU that is not there: its tensors lie in main memory, and the CPU computes with them.

It refuses what a GPU refuses: operations on tensors of both sides, and NumPy's view of a tensor of its own.
Kernels run in their torch form, or in Triton's on its interpreter; DALI works on the CPU, and what it gives
then lies on the GPU. Nothing is learned here of speed, of CUDA's numbers, or of DALI's own work on a GPU.

torch must find the `driver` loaded when it is imported. Each rank has a GPU of its own.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from hcl.engine import replay, replayed_step
from kernels import dispatch
from pipelines import decoding, kept_images, labelled_images, schedule, training_views

INDEX = int(os.environ.get("LOCAL_RANK", "0"))
GPU = torch.device("cuda", INDEX)
CPU = torch.device("cpu")
MOVES = (torch.ops.aten._to_copy, torch.ops.aten.copy_)
FILLS = (torch.ops.aten.fill, torch.ops.aten.fill_)
INDEXING = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)
WAITING = (
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten._unique2,
    torch.ops.aten.equal,
    torch.ops.aten.masked_select,
    torch.ops.aten.nonzero,
    torch.ops.aten.repeat_interleave,
    torch.ops.aten.unique_dim,
)
"""What needs the values of tensors on the host, for which the host waits."""


class Stream:
    """Of work that is done at once."""

    def __init__(self, device: object = None) -> None:
        self.device = device

    def wait_stream(self, other: "Stream") -> None:
        """Nothing is left to wait for."""

    def synchronize(self) -> None:
        """Nothing is left to wait for."""


CUDA = {
    "_exchange_device": lambda device: INDEX,
    "_lazy_init": lambda: None,
    "_maybe_exchange_device": lambda device: INDEX,
    "Stream": Stream,
    "current_device": lambda: INDEX,
    "current_stream": Stream,
    "device_count": lambda: INDEX + 1,
    "get_device_capability": lambda device=None: (9, 0),
    "get_device_name": lambda device=None: "a GPU that is not there",
    "is_available": lambda: True,
    "is_current_stream_capturing": lambda: ComputedAnew.records,
    "is_initialized": lambda: True,
    "mem_get_info": lambda device=None: (2**33, 2**33),
    "set_device": lambda device: None,
    "stream": lambda stream: nullcontext(),
    "synchronize": lambda device=None: None,
}


class MixedDevicesError(RuntimeError):
    """An operation on tensors of both sides."""


class WaitingError(RuntimeError):
    """A wait for the device where a CUDA graph would be recorded."""


class OnGPU(torch.Tensor):
    """A tensor that says it is on the GPU."""

    in_memory: torch.Tensor

    @staticmethod
    def __new__(cls, in_memory: torch.Tensor) -> "OnGPU":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            in_memory.shape,
            strides=in_memory.stride(),
            storage_offset=in_memory.storage_offset(),
            dtype=in_memory.dtype,
            device=GPU,
        )
        tensor.in_memory = in_memory
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"{self.in_memory!r} on a GPU that is not there"

    def tolist(self) -> Any:
        return self.in_memory.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("a tensor on the GPU has no NumPy form")

    __array__ = numpy

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        copy = OnGPU(self.in_memory.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            return torch.nn.Parameter(copy, self.requires_grad)
        return copy.requires_grad_(self.requires_grad)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.in_memory.detach().__reduce_ex__(protocol)


class Emulation(TorchDispatchMode):
    """While it is entered, CUDA is there.

    Args:
        kernels: the form in which kernels run that choose by themselves, "torch" or "triton".

    Attributes:
        operations: names of torch's operations, and of the kernels', that ran.
    """

    def __init__(self, kernels: str = "torch") -> None:
        super().__init__()
        self.operations: set[str] = set()
        dispatch.TRITON_INSTALLED = kernels == "triton"

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations.add(func.name())
        return compute(func, args, kwargs or {})


def compute(func: Any, args: tuple, kwargs: dict) -> Any:
    """One operation of torch, in main memory; what it gives is on the GPU if what it is given is."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    wanted = torch.device(kwargs["device"]) if kwargs.get("device") else None
    if not any(isinstance(tensor, OnGPU) for tensor in tensors) and (wanted is None or wanted.type == "cpu"):
        return func(*args, **kwargs)
    _refuse_mixed(func, args, tensors)
    if ComputedAnew.records:
        _refuse_waiting(func, args, tensors, wanted)
    args, kwargs = tree_map_only(OnGPU, lambda tensor: tensor.in_memory, (args, kwargs))
    result = func(*args, **(kwargs if wanted is None else kwargs | {"device": CPU}))
    if wanted is not None and wanted.type == "cpu":
        return result
    given = {id(tensor.in_memory if isinstance(tensor, OnGPU) else tensor): tensor for tensor in tensors}
    return tree_map_only(
        torch.Tensor, lambda tensor: given[id(tensor)] if id(tensor) in given else OnGPU(tensor), result
    )


def _refuse_mixed(func: Any, args: tuple, tensors: list[torch.Tensor]) -> None:
    """Numbers of 0 dimensions may come from either side where every element is taken by itself."""
    if func.overloadpacket in MOVES or not any(isinstance(tensor, OnGPU) for tensor in tensors):
        return
    elsewhere = [tensor for tensor in tensors if not isinstance(tensor, OnGPU)]
    if torch.Tag.pointwise in func.tags or func.overloadpacket in (*FILLS, *INDEXING):
        elsewhere = [tensor for tensor in elsewhere if tensor.dim()]
    if func.overloadpacket in INDEXING and isinstance(args[0], OnGPU):
        indices = {id(index) for index in args[1]}
        elsewhere = [tensor for tensor in elsewhere if id(tensor) not in indices]
    if elsewhere:
        places = [(tuple(tensor.shape), tensor.device.type) for tensor in tensors]
        raise MixedDevicesError(f"{func}: {places}")


def _refuse_waiting(func: Any, args: tuple, tensors: list[torch.Tensor], wanted: torch.device | None) -> None:
    """No values may go to the host or come from there, nor decide how many there are."""
    on_gpu = [isinstance(tensor, OnGPU) for tensor in tensors]
    moves = func.overloadpacket in MOVES and (
        not all(on_gpu) or (wanted is not None and wanted.type != "cuda")
    )
    masks = func.overloadpacket in INDEXING and any(
        index is not None and index.dtype == torch.bool for index in args[1]
    )
    if func.overloadpacket in WAITING or moves or masks:
        raise WaitingError(f"{func}: {[tuple(tensor.shape) for tensor in tensors]}")


def install() -> None:
    """Have torch see a GPU, and DALI do without one, in all of this process."""
    for name, stand_in in CUDA.items():
        setattr(torch.cuda, name, stand_in)
    # So `torch.tensor` asks the dispatcher to move what it has made, and `Module.to` makes new parameters.
    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    # A tensor made in inference mode cannot be wrapped.
    torch.inference_mode = lambda mode=True: torch.no_grad()
    _keep_dali_on_the_cpu()
    replay.Graph = replayed_step.Graph = ComputedAnew


class ComputedAnew:
    """In the place of a CUDA graph, whose results lie where the first one did.

    Attributes:
        records: whether one computes now, so that nothing may wait for the device.
    """

    pool = None
    records = False

    def __init__(self, function: Callable, *tensors: torch.Tensor, pool: None = None) -> None:
        self.function, self.result = function, None

    def __call__(self, *tensors: torch.Tensor) -> object:
        ComputedAnew.records = True
        try:
            result = self.function(*tensors)
        finally:
            ComputedAnew.records = False
        if self.result is None:
            self.result = result
        for place, value in zip(tree_leaves(self.result), tree_leaves(result), strict=True):
            if isinstance(place, torch.Tensor):
                place.copy_(value)
        return self.result


def _keep_dali_on_the_cpu() -> None:
    decoder, to_torch = decoding.decoder, schedule._to_torch
    for module in (training_views, labelled_images, kept_images):
        module.decoder = lambda device: decoder(CPU)
    schedule.device_id = lambda device: None
    schedule._to_torch = lambda batch, device: to_torch(batch, CPU).to(device)
    training_views._to_gpu = lambda draws: draws
    fit = labelled_images._Square._fit
    labelled_images._Square.label = lambda self, mask: fit(
        self, mask, interp_type=labelled_images.dali.types.INTERP_NN
    )
