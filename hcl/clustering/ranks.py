"""What clustering asks of the processes that train together."""

from typing import Protocol

from torch import Tensor


class Ranks(Protocol):
    """The collectives that clustering needs, as `hcl.distributed.World` has them."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks."""

    def slice(self, length: int) -> slice:
        """This rank's share of rows."""

    def gather(self, rows: Tensor) -> Tensor:
        """Equally many rows of every rank, in rank order."""

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Rows of all ranks, however many, in rank order."""

    def to_owners(self, rows: Tensor, places: Tensor, total: int) -> tuple[Tensor, Tensor]:
        """Bring each row to the rank whose share holds its place; what came, and its places there."""
