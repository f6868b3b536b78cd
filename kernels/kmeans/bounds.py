"""Lloyd steps on a CPU that repeat the search only for rows whose nearest centroid may have changed.

By the triangle inequality a centroid that moved by delta is at most delta nearer to a row than before. Every
row keeps an upper bound of the distance to its own centroid and a lower bound of the distance to all others
(Hamerly, "Making k-means even faster", 2010). Late in a clustering few centroids still move far and most
hardly move, but a single lower bound would have to shrink by the farthest move. Therefore the far movers are
multiplied with all rows, and the bound shrinks only by the farthest move of the rest. For rows whose bounds
meet, all centroids are searched as in `reference`.

Bounds are widened by the possible rounding errors of the bounds and of the scores, including the scores of
the plain search: what is decided here, the plain search is certain to find too. Rows with two centroids
equally near up to rounding go to the plain search itself, in batches of the shape that it would multiply:
matrix products of another shape may round differently.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.kmeans.reference import LloydStep, chunk_rows, nearest_centroid, sum_of_squares, weighted
from kernels.linear import linear
from kernels.precision import without_autocast

# Rows times centroids from which skipping rows saves more than the bookkeeping costs.
LEAST_SCORES = 2**20
# Rows whose bounds are checked together: torch gives a thread at least 2^15 elements of a vector.
SURVEY_ROWS = 2**16
# One row in this many is sampled to estimate what multiplying the movers would save.
SAMPLED = 32
# Cost of a score in a search, relative to one with a mover: rows are gathered, and the two least are found.
SEARCH_COST = 1.5
# Rows summed together, few enough for their float64 form to stay in the cache.
SUM_ROWS = 2**11
# The movers and one more column are a multiple of this: the product is compiled anew for every new width.
COLUMNS = 16
# Rows are subtracted from sums only if lengths differ by less than this: otherwise the rounding would show.
LENGTH_RATIO = 2**16


class _Centroids(NamedTuple):
    """Centroids (K, D), their squared lengths (K,), and the largest length."""

    points: Tensor
    squares: Tensor
    longest: Tensor


class BoundedSteps:
    """`lloyd_step` of the same rows for successive sets of centroids.

    Args:
        x: (N, D) float32 or float64 on the CPU; must not change between steps.
        weights: (N,) int64, how often each row counts; None: once.
    """

    def __init__(self, x: Tensor, weights: Tensor | None = None) -> None:
        self.x = x.contiguous()
        # float64 is exact for integers up to 2^53.
        self.weights = None if weights is None else weights.double()
        self.lengths = torch.linalg.vector_norm(self.x, dim=1)
        self.squares = sum_of_squares(x, weights)
        self.upper = torch.full_like(self.lengths, torch.inf)
        self.lower = torch.zeros_like(self.lengths)
        self.assignment = torch.full((len(x),), -1)
        self.sums: Tensor | None = None
        self.centroids: Tensor | None = None
        eps = torch.finfo(x.dtype).eps
        # Twice the error bound of dot products of D terms and the few operations around them: relative, and
        # absolute for numbers so small that they lose precision.
        self.rounding = (x.shape[1] + 8) * eps
        self.least = 4 * (x.shape[1] + 8) * torch.finfo(x.dtype).tiny
        self.up, self.down = 1 + 2 * eps, 1 - 2 * eps
        self.removable = _removable(self.lengths if weights is None else self.lengths * weights)

    def __call__(self, centroids: Tensor) -> LloydStep:
        """Assign every row to the nearest of centroids (K, D), of the rows' dtype, and sum."""
        squares = centroids.square().sum(dim=1)
        current = _Centroids(centroids, squares, torch.linalg.vector_norm(centroids, dim=1).max())
        with without_autocast(self.x):
            rows = self._undecided(current)
            old, new = self.assignment[rows], self._search(rows, current)
        moved = old != new
        self.assignment = self.assignment.index_copy(0, rows, new)
        self.centroids = centroids
        sums = self._sum(rows[moved], old[moved], new[moved], len(centroids))
        counts = self.assignment.bincount(self.weights, minlength=len(centroids)).long()
        c = centroids.double()
        inertia = self.squares - 2 * (c * sums).sum() + (c.square().sum(dim=1) * counts).sum()
        return LloydStep(self.assignment, sums, counts, inertia.clamp(min=0))

    def _undecided(self, current: _Centroids) -> Tensor:
        """Update the bounds, and return the rows whose nearest centroid may have changed."""
        everything = torch.arange(len(self.x))
        if self.centroids is None:
            return everything
        drift = torch.linalg.vector_norm(current.points.double() - self.centroids.double(), dim=1)
        drift = drift.to(self.x.dtype) * self.up
        order = drift.argsort(descending=True, stable=True)
        count = self._movers(drift, drift[order])
        if count is None:
            return everything
        rest = drift[order[count:]].amax() if count < len(order) else drift.new_zeros(())
        survey = _Survey(self, current, drift, order[:count], rest)
        undecided = [survey(part) for part in everything.split(SURVEY_ROWS)]
        return torch.cat([self._measured(rows, current) for rows in undecided])

    def _movers(self, drift: Tensor, farthest: Tensor) -> int | None:
        """Return how many of the farthest movers to multiply with all rows; None: search for all rows.

        A row needs no search if the gap between its bounds exceeds the farthest move of the other centroids
        plus its own centroid's move, or twice the former if its own centroid is a mover and its distance is
        known.
        """
        gap = (self.lower - self.upper)[::SAMPLED]
        outlasts = torch.maximum(gap - drift[self.assignment[::SAMPLED]], gap / 2).sort().values
        searched = torch.searchsorted(outlasts, F.pad(farthest, (0, 1)))
        cost = torch.arange(len(drift) + 1) * len(gap) + SEARCH_COST * len(drift) * searched
        least = int(cost.argmin())
        if cost[least] >= SEARCH_COST * len(drift) * len(gap) / 2:
            return None
        return min(-(-(least + 1) // COLUMNS) * COLUMNS - 1, len(drift)) if least else 0

    def _measured(self, rows: Tensor, current: _Centroids) -> Tensor:
        """Return the rows that stay undecided after measuring the distance to their own centroid."""
        own, lengths = self.assignment[rows], self.lengths[rows]
        products = self.x.index_select(0, rows).mul_(current.points.index_select(0, own)).sum(dim=1)
        scores = current.squares[own].sub_(products, alpha=2)
        reach = self.reach(lengths, current)
        self.upper[rows] = upper = self.distance(scores, lengths, reach).mul_(self.up)
        return rows[~decided(upper, self.lower[rows], reach)]

    def _search(self, rows: Tensor, current: _Centroids) -> Tensor:
        """Search all centroids for rows and renew the rows' bounds. Nearest centroids, in order of `rows`."""
        size = chunk_rows(self.x, len(current.points))
        nearest = torch.cat([self._search_part(part, current) for part in rows.split(size)])
        reach = self.reach(self.lengths[rows], current)
        tied = (~decided(self.upper[rows], self.lower[rows], reach)).nonzero()[:, 0]
        if len(tied):
            nearest[tied] = self._search_plainly(rows[tied], current)
        return nearest

    def _search_plainly(self, rows: Tensor, current: _Centroids) -> Tensor:
        """Find the nearest centroids of rows by the plain search, and reset their bounds to say nothing."""
        self.upper[rows], self.lower[rows] = torch.inf, 0
        size = min(chunk_rows(self.x, len(current.points)), len(self.x))
        filled = torch.cat([rows, rows[:1].expand(-len(rows) % size)])
        parts = [nearest_centroid(self.x[part], current.points) for part in filled.split(size)]
        return torch.cat(parts)[: len(rows)]

    def _search_part(self, rows: Tensor, current: _Centroids) -> Tensor:
        scores = _scores(self.x.index_select(0, rows), current.points, current.squares)
        nearest = self.assignment[rows].clamp_(min=0)
        least, second = _least_beside(scores, nearest)
        # argmin costs more than amin: taken only where the nearest centroid is not the previous one.
        other = (~(least < second)).nonzero()[:, 0]
        scores = scores.index_select(0, other)
        nearest[other] = scores.scatter_(1, nearest[other, None], least[other, None]).argmin(dim=1)
        least[other], second[other] = _least_beside(scores, nearest[other])
        lengths = self.lengths[rows]
        reach = self.reach(lengths, current)
        self.upper[rows] = self.distance(least, lengths, reach).mul_(self.up)
        self.lower[rows] = self.distance(second, lengths, -reach).mul_(self.down)
        return nearest

    def reach(self, lengths: Tensor, current: _Centroids) -> Tensor:
        """Return the error bound of squared distances and scores of rows of these lengths."""
        return (lengths + current.longest).square_().mul_(self.rounding).add_(self.least)

    @staticmethod
    def distance(scores: Tensor, lengths: Tensor, reach: Tensor) -> Tensor:
        """Return the distance for a score ||c||^2 - 2 x . c, with reach added before the root."""
        return (scores + lengths.square()).add_(reach).clamp_(min=0).sqrt_()

    def _sum(self, rows: Tensor, old: Tensor, new: Tensor, clusters: int) -> Tensor:
        """Sum the rows of every cluster; where safe, update the previous sums with the rows that moved."""
        if self.sums is None or not self.removable:
            self.sums = self._sum_of(torch.arange(len(self.x)), self.assignment, clusters)
        else:
            self.sums = self.sums + self._sum_of(rows, new, clusters) - self._sum_of(rows, old, clusters)
        return self.sums

    def _sum_of(self, rows: Tensor, assignment: Tensor, clusters: int) -> Tensor:
        """Sum x[rows] of every cluster in float64, (K, D): sorted by cluster, in pieces of fixed size."""
        assignment, order = assignment.sort(stable=True)
        sums = self.x.new_zeros(clusters, self.x.shape[1], dtype=torch.float64)
        for piece, ids in zip(rows[order].split(SUM_ROWS), assignment.split(SUM_ROWS), strict=True):
            present, counts = ids.unique_consecutive(return_counts=True)
            begin = F.pad(counts.cumsum(0)[:-1], (1, 0))
            values = weighted(self.x.index_select(0, piece).double(), self.weights, piece)
            sums[present] += F.embedding_bag(torch.arange(len(ids)), values, begin, mode="sum")
        return sums


class _Survey:
    """Updates the bounds of rows for moved centroids, a part at a time, and returns the undecided rows."""

    def __init__(
        self, steps: BoundedSteps, current: _Centroids, drift: Tensor, movers: Tensor, rest: Tensor
    ) -> None:
        self.steps, self.current, self.drift, self.rest = steps, current, drift, rest
        # One more column, with score infinity, stands for every centroid that is not a mover.
        self.points = F.pad(current.points[movers], (0, 0, 0, 1))
        self.squares = F.pad(current.squares[movers], (0, 1), value=torch.inf)
        self.column = torch.full((len(drift),), len(movers)).index_copy_(0, movers, torch.arange(len(movers)))

    def __call__(self, rows: Tensor) -> Tensor:
        steps, part = self.steps, slice(int(rows[0]), int(rows[-1]) + 1)
        own, lengths = steps.assignment[part], steps.lengths[part]
        reach = steps.reach(lengths, self.current)
        upper = (steps.upper[part] + self.drift[own]).mul_(steps.up)
        lower = (steps.lower[part] - self.rest).clamp_(min=0).mul_(steps.down)
        if len(self.points) > 1:
            scores = _scores(steps.x[part], self.points, self.squares)
            mine, others = _least_beside(scores, self.column[own])
            upper = torch.minimum(upper, steps.distance(mine, lengths, reach).mul_(steps.up))
            lower = torch.minimum(lower, steps.distance(others, lengths, -reach).mul_(steps.down))
        steps.upper[part], steps.lower[part] = upper, lower
        return rows[~decided(upper, lower, reach)]


def _scores(x: Tensor, points: Tensor, squares: Tensor) -> Tensor:
    """||c||^2 - 2 x . c of rows (n, D) and centroids (m, D)."""
    return linear(x, -2 * points, squares)


def _least_beside(scores: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Return every row's score in its own column, which is set to infinity, and the least of its others."""
    mine = scores.gather(1, column[:, None])[:, 0]
    return mine, scores.scatter_(1, column[:, None], torch.inf).amin(dim=1)


def decided(upper: Tensor, lower: Tensor, reach: Tensor) -> Tensor:
    """Return where the plain search must find the same centroid: its two scores err by at most reach."""
    return upper.square().add_(reach, alpha=2) < lower.square()


def _removable(lengths: Tensor) -> bool:
    """Return whether lengths are so similar that a removed row leaves no significant rounding in a sum."""
    some = lengths[lengths > 0]
    return not len(some) or bool(some.max() < LENGTH_RATIO * some.min())
