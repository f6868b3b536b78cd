"""Products with frozen weights: oneDNN lays a weight out once, and GELU costs no extra pass."""

from typing import Self

import torch
from torch import Tensor

from kernels.linear import onednn


def runs_in(dtype: torch.dtype) -> bool:
    """Return whether oneDNN multiplies in a dtype on this processor."""
    if dtype == torch.bfloat16:
        return onednn.AVAILABLE and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return onednn.AVAILABLE and dtype == torch.float32


class FrozenWeight:
    """A weight in oneDNN's fastest layout for a CPU, without gradients; copies share the weight.

    Args:
        weight: (O, I), float32 or bfloat16, on a CPU.
        bias: (O,), of the weight's dtype.

    Raises:
        ValueError: oneDNN cannot multiply in this dtype here, or the tensors are not as described.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        if weight.ndim != 2 or bias.shape != weight.shape[:1] or bias.dtype != weight.dtype:
            raise ValueError(
                "expected a weight (O, I) and a bias (O,) of its dtype, "
                f"got {tuple(weight.shape)}, {tuple(bias.shape)} and {weight.dtype}, {bias.dtype}"
            )
        if weight.device.type != "cpu" or not runs_in(weight.dtype):
            raise ValueError(f"oneDNN does not multiply in {weight.dtype} on {weight.device} here")
        self.dtype, self._bias = weight.dtype, bias.detach().contiguous()
        self._laid_out = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def product(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """Compute x W^T + b, or GELU (by erf) of it.

        Args:
            x: (..., I) of the weight's dtype, contiguous or not.
            gelu: whether GELU follows.

        Returns:
            (..., O) of that dtype.
        """
        activation, algorithm = ("gelu", "none") if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(
            x.contiguous(), self._laid_out, self._bias, activation, [], algorithm
        )
