"""Marginals that may still be in the making."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Pending(Protocol):
    """Marginals that were asked for, wherever they are computed."""

    def result(self) -> Tensor:
        """The marginals (B, C, H, W) float32, once they are there, however often they are asked for.

        Raises:
            RuntimeError: a worker process died.
            CancelledError: they were cancelled.
        """
        ...

    def cancel(self) -> None:
        """Leave undone what has not begun, and wait for what has; there is no result then."""
        ...


class Ready(NamedTuple):
    """Marginals that are there."""

    marginals: Tensor

    def result(self) -> Tensor:
        """The marginals."""
        return self.marginals

    def cancel(self) -> None:
        """Nothing is left to be done."""
