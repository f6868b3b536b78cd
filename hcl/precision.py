"""Number formats of the forward pass."""

from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp8"]
"""fp8 is bf16 but for the frozen backbone's linear layers (`hcl.models.fp8`)."""

FP8_CAPABILITY = (8, 9)


def mixed(device: torch.device, precision: Precision) -> torch.autocast:
    """Matrix products in bfloat16 for ``bf16`` and ``fp8``; everything as it is for ``fp32``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision != "fp32")


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """What matrix products of a tensor are computed in: its own dtype, or what autocast rounds it to."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def forbid_tf32() -> None:
    """Have matrix products and convolutions of float32 be of float32, in all of this process.

    torch rounds the operands of convolutions on GPUs to 11 bits (TF32) unless it is told not to, and those of
    matrix products where the environment says so, as that of some container images does
    (`TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1`), or the program that uses this.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def runs_fp8(device: torch.device) -> bool:
    """Whether a device multiplies in FP8 (e4m3) itself: NVIDIA's GPUs from Ada and Hopper on."""
    if device.type != "cuda" or torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device) >= FP8_CAPABILITY


def require_support(device: torch.device, precision: Precision) -> None:
    """Raise a ValueError where a device does not compute in a number format."""
    if precision == "fp8" and not runs_fp8(device):
        found = torch.cuda.get_device_name(device) if device.type == "cuda" else f"a {device.type.upper()}"
        raise ValueError(
            f"precision fp8 needs an NVIDIA GPU of compute capability {'.'.join(map(str, FP8_CAPABILITY))} "
            f"or more, and this is {found}: take --precision bf16"
        )
