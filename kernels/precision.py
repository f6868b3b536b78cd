"""The precision in which sums and distances are computed."""

import torch
from torch import Tensor


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Name the widest dtype of the tensors, at least float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def without_autocast(tensor: Tensor) -> torch.autocast:
    """Suspend autocast on the tensor's device: a distance rounded to 8 bits picks the wrong centroid."""
    return torch.autocast(tensor.device.type, enabled=False)
