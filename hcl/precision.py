"""Number formats of the forward pass."""

from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp8"]
"""fp8 is bf16 except in the frozen backbone's linear layers (`hcl.models.fp8`)."""

FP8_CAPABILITY = (8, 9)


def mixed(device: torch.device, precision: Precision) -> torch.autocast:
    """Return autocast with bfloat16 matrix products for ``bf16`` and ``fp8``, disabled for ``fp32``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision != "fp32")


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Return the dtype of a tensor's matrix products: its own, or autocast's if that is enabled."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def forbid_tf32() -> None:
    """Compute matrix products and convolutions of float32 in full float32, in the whole process.

    By default torch rounds the operands of convolutions on GPUs to 11 bits (TF32). It also does so for matrix
    products if the calling program or the environment asks for it, as some container images do
    (`TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1`).
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def runs_fp8(device: torch.device) -> bool:
    """Whether a device supports FP8 (e4m3) products natively, as NVIDIA's GPUs do from Ada and Hopper on."""
    if device.type != "cuda" or torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device) >= FP8_CAPABILITY


def require_support(device: torch.device, precision: Precision) -> None:
    """Raise a ValueError if a device does not support a number format."""
    if precision == "fp8" and not runs_fp8(device):
        found = torch.cuda.get_device_name(device) if device.type == "cuda" else f"a {device.type.upper()}"
        raise ValueError(
            f"precision fp8 needs an NVIDIA GPU of compute capability {'.'.join(map(str, FP8_CAPABILITY))} "
            f"or more, but this is {found}: use --precision bf16"
        )
