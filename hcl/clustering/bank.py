"""One token bank: a sample of the whole data set's foreground or background tokens, divided among the ranks.

Rows are numbered in the order of their images, whichever rank computed them, and every rank holds a
contiguous share. So a bank has the same rows for any number of ranks, and none of several holds all of it.
"""

from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from hcl.clustering.sampling import BankRows
from hcl.distributed import World


class PlacedRows(NamedTuple):
    """Rows (n, C) that this rank computed, their places (n,) among all rows, and the number of all rows."""

    rows: Tensor
    places: Tensor
    total: int


class Bank(NamedTuple):
    """This rank's share (n, C) of a bank, float32, and the number of rows of all ranks."""

    rows: Tensor
    total: int

    @classmethod
    def of(cls, new: PlacedRows, world: World) -> Self:
        """Build a bank of new rows only."""
        received, places = world.to_owners(new.rows, new.places, new.total)
        rows = torch.empty_like(received)
        rows[places] = received
        return cls(rows, new.total)

    def renewed(self, new: PlacedRows, share: float, rng: np.random.Generator, world: World) -> Self:
        """Return the bank with floor(share * min(len)) of its rows replaced by new rows at the same places.

        Args:
            new: rows of another pass; there may be more or fewer than in the bank.
            share: share of the rows to replace, counted in the shorter of the two; 1 gives a bank of ``new``.
            rng: draws the rows to replace; the same on every rank.
            world: the ranks that share the bank.
        """
        if share == 1:
            return self.of(new, world)
        shorter = min(self.total, new.total)
        drawn = torch.from_numpy(rng.choice(shorter, size=int(share * shorter), replace=False))
        chosen = torch.zeros(new.total, dtype=torch.bool, device=new.places.device)
        chosen[drawn.to(chosen.device)] = True
        enters = chosen[new.places]
        received, places = world.to_owners(new.rows[enters], new.places[enters], self.total)
        rows = self.rows.clone()
        rows[places] = received
        return self._replace(rows=rows)

    def at(self, places: Tensor, world: World) -> Tensor:
        """Return the rows (k, C) at places (k,), on every rank."""
        share = world.slice(self.total)
        mine = (places >= share.start) & (places < share.stop)
        found = self.rows.new_zeros(len(places), self.rows.shape[1])
        found[mine] = self.rows[places[mine] - share.start]
        return world.all_reduce(found)


def place(parts: list[BankRows], world: World) -> PlacedRows:
    """Number the rows of all ranks by their images' order, and by their own order within an image.

    Args:
        parts: this rank's rows, with images in any order; all rows of an image are on one rank. The list is
            emptied, so that the rows are not in memory twice.
        world: the ranks that take part.
    """
    rows = torch.cat([part.tokens for part in parts])
    images, order = torch.cat([part.images for part in parts]).sort(stable=True)
    parts.clear()
    own, counts = images.unique_consecutive(return_counts=True)
    everyone = world.all_gather_rows(torch.stack([own, counts], dim=1))
    numbers, rows_of = everyone[everyone[:, 0].argsort()].unbind(dim=1)
    first = _before(rows_of)[torch.searchsorted(numbers.contiguous(), own)]
    within = torch.arange(len(rows), device=rows.device) - _before(counts).repeat_interleave(counts)
    places = torch.empty_like(order)
    places[order] = first.repeat_interleave(counts) + within
    return PlacedRows(rows, places, int(rows_of.sum()))


def _before(counts: Tensor) -> Tensor:
    """Number of rows before each group, given the groups' sizes."""
    return counts.cumsum(dim=0) - counts
