"""Sums of rows by index, with the same bits every time."""

from torch import Tensor


def add_at(sums: Tensor, index: Tensor, rows: Tensor) -> None:
    """Add row i of `rows` (n, ...) to row index[i] of `sums` (m, ...), in place; same input, same bits.

    Args:
        sums: of the dtype of the rows, on their device.
        index: (n,) int64, from 0 to m - 1.
        rows: (n, ...).
    """
    # Each is reproducible on one kind of device and not on the other.
    if sums.is_cuda:
        sums.index_put_((index,), rows, accumulate=True)
    else:
        sums.index_add_(0, index, rows)
