"""Choice of the implementation of an operation: one rule for all operations."""

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

IMPLEMENTATIONS = ("auto", "torch", "triton")
TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BFLOAT16_CAPABILITY = 8
"""Compute capability, in whole numbers, of NVIDIA's first GPUs whose matrix units take bfloat16.

For earlier ones (T4, V100) Triton compiles matrix products without matrix units: most such kernels then spill
kilobytes of registers per thread.
"""


def choose(
    impl: str, tensor: Tensor, *others: Tensor | None, available: bool, elsewhere: str = "torch"
) -> str:
    """Name the implementation to run on an operation's tensors.

    "auto" is Triton on CUDA tensors if the operation has a Triton form and the GPU suits it, and `elsewhere`
    otherwise. A named implementation that cannot run is an error, never a silent fallback.

    Args:
        impl: "auto", "torch", "triton" or the value of `elsewhere`.
        tensor: the operation's first input; its device decides.
        others: further inputs, which must be on the same device: a kernel would read the memory of another
            device as if it were its own. None: an input that is not given.
        available: whether the operation has a Triton form.
        elsewhere: the implementation that "auto" chooses when it does not choose Triton.

    Raises:
        ValueError: `impl` is none of these, "triton" cannot run on the tensor's device, or the tensors are
            on several.
        NotImplementedError: "triton" was requested, and the operation has no Triton form.
        ModuleNotFoundError: "triton" was requested and is not installed.
    """
    names = tuple(dict.fromkeys((*IMPLEMENTATIONS, elsewhere)))
    if impl not in names:
        raise ValueError(f"impl must be one of {names}, got {impl!r}")
    devices = dict.fromkeys(each.device for each in (tensor, *others) if each is not None)
    if len(devices) > 1:
        raise ValueError(f"the tensors are on {' and '.join(map(str, devices))}; move them to one device")
    if impl == "auto":
        return "triton" if available and TRITON_INSTALLED and _on_suitable_gpu(tensor) else elsewhere
    if impl == "triton":
        _require_triton(tensor, available)
    return impl


def _on_suitable_gpu(tensor: Tensor) -> bool:
    if not tensor.is_cuda:
        return False
    # torch.compile cannot ask for the capability without a break in its graph.
    return bool(torch.version.hip or torch.compiler.is_compiling()) or (
        capability(tensor.device) >= BFLOAT16_CAPABILITY
    )


@cache
def capability(device: torch.device) -> int:
    """Return a GPU's compute capability, its first number alone."""
    return torch.cuda.get_device_capability(device)[0]


def exporting() -> bool:
    """Return whether a program is being exported, to run where this project's operators are unknown.

    torch's own is_exporting() is also true under torch.compile before torch 2.13.
    """
    return torch.compiler._is_exporting_flag


def _require_triton(tensor: Tensor, available: bool) -> None:
    if not available:
        raise NotImplementedError(
            "impl='triton': this operation has no Triton form for these dtypes; use 'auto' or 'torch'"
        )
    if not TRITON_INSTALLED:
        raise ModuleNotFoundError("impl='triton' needs the package triton; install it or use 'auto'")
    if not (tensor.is_cuda or TRITON_INTERPRETED):
        raise ValueError(
            f"impl='triton' needs CUDA tensors, got one on {tensor.device}; use 'auto' or 'torch'"
        )
