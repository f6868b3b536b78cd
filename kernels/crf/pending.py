"""Marginals that may not have been computed yet."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Pending(Protocol):
    """Handle of submitted marginals, wherever they are computed."""

    def result(self) -> Tensor:
        """Wait for the marginals (B, C, H, W) float32 and return them; can be called repeatedly.

        Raises:
            RuntimeError: a worker process died.
            CancelledError: they were cancelled.
        """
        ...

    def cancel(self) -> None:
        """Cancel what has not begun, and wait for what has; there is no result then."""
        ...


class Ready(NamedTuple):
    """Marginals that are already computed."""

    marginals: Tensor

    def result(self) -> Tensor:
        """Return the marginals."""
        return self.marginals

    def cancel(self) -> None:
        """Do nothing: everything is computed."""
