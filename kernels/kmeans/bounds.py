"""Lloyd steps on a CPU that search again only for rows whose nearest centroid may have changed.

By the triangle inequality a centroid that moved by delta has come nearer to a row by delta at most. Every row
keeps an upper bound of its distance to its own centroid and a lower bound of that to all others (Hamerly,
"Making k-means even faster", 2010). Late in a clustering few centroids still move far and most hardly move,
and a single bound would pay for the farthest move. So the far movers are multiplied with all rows, and the
bound pays for the rest only. Rows whose bounds meet are searched among all centroids as in `reference`.

Bounds are widened by what rounding can do to them and to the scores, those of the plain search included: what
is decided here, the plain search is certain to find too. What is left, two centroids equally near up to
rounding, goes to the plain search itself, in batches of the shape that it would multiply: matrix products of
another shape may round otherwise.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.kmeans.reference import LloydStep, chunk_rows, nearest_centroid, sum_of_squares, weighted
from kernels.linear import linear
from kernels.precision import without_autocast

# Rows times centroids from which passing over rows gains more than the bookkeeping costs.
LEAST_SCORES = 2**20
# Rows whose bounds are looked at together: torch gives a thread no less than 2^15 elements of a vector.
SURVEY_ROWS = 2**16
# One row in how many is asked what movers would spare.
SAMPLED = 32
# What a score costs in a search, beside one with a mover: rows are gathered, and the two least are found.
SEARCH_COST = 1.5
# Rows summed together, so that their float64 form stays in the cache.
SUM_ROWS = 2**11
# Movers and the column beside them come in such numbers: the product is compiled anew for every other width.
COLUMNS = 16
# Rows are taken out of sums only where lengths differ by less: beyond it the rounding left behind would show.
LENGTH_RATIO = 2**16


class _Centroids(NamedTuple):
    """Centroids (K, D), their squared lengths (K,), and the longest's length."""

    points: Tensor
    squares: Tensor
    longest: Tensor


class BoundedSteps:
    """`lloyd_step` of the same rows for one set of centroids after the other.

    Args:
        x: (N, D) float32 or float64 on the CPU, not to be changed meanwhile.
        weights: (N,) int64, how often each row counts; None: once.
    """

    def __init__(self, x: Tensor, weights: Tensor | None = None) -> None:
        self.x, self.weights = x.contiguous(), weights
        self.lengths = torch.linalg.vector_norm(self.x, dim=1)
        self.squares = sum_of_squares(x, weights)
        self.upper = torch.full_like(self.lengths, torch.inf)
        self.lower = torch.zeros_like(self.lengths)
        self.assignment = torch.full((len(x),), -1)
        self.sums: Tensor | None = None
        self.centroids: Tensor | None = None
        eps = torch.finfo(x.dtype).eps
        # Twice what dot products of D terms and the few operations around them can be wrong by: of their
        # size, and at least, where numbers are too small for their precision.
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
        # float64 holds whole numbers up to 2^53.
        weights = None if self.weights is None else self.weights.double()
        counts = self.assignment.bincount(weights, minlength=len(centroids)).long()
        c = centroids.double()
        inertia = self.squares - 2 * (c * sums).sum() + (c.square().sum(dim=1) * counts).sum()
        return LloydStep(self.assignment, sums, counts, inertia.clamp(min=0))

    def _undecided(self, current: _Centroids) -> Tensor:
        """Rows whose nearest centroid is not certainly the one before; the bounds follow the centroids."""
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
        """How many of the farthest movers to multiply with all rows; None: search for all rows instead.

        A row is searched for unless the gap of its bounds outlasts the farthest move of the others, and
        either its own centroid's move or, where that one is a mover and its distance known, the same again.
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
        """The rows that stay undecided once the distance to their own centroid is measured."""
        own, lengths = self.assignment[rows], self.lengths[rows]
        products = self.x.index_select(0, rows).mul_(current.points.index_select(0, own)).sum(dim=1)
        scores = current.squares[own].sub_(products, alpha=2)
        reach = self.reach(lengths, current)
        self.upper[rows] = upper = self.distance(scores, lengths, reach).mul_(self.up)
        return rows[~decided(upper, self.lower[rows], reach)]

    def _search(self, rows: Tensor, current: _Centroids) -> Tensor:
        """Search for rows among all centroids, and renew their bounds. Nearest centroids, as of `rows`."""
        size = chunk_rows(self.x, len(current.points))
        nearest = torch.cat([self._search_part(part, current) for part in rows.split(size)])
        reach = self.reach(self.lengths[rows], current)
        tied = (~decided(self.upper[rows], self.lower[rows], reach)).nonzero()[:, 0]
        if len(tied):
            nearest[tied] = self._search_plainly(rows[tied], current)
        return nearest

    def _search_plainly(self, rows: Tensor, current: _Centroids) -> Tensor:
        """Nearest centroids of rows as the plain search finds them; their bounds say nothing afterwards."""
        self.upper[rows], self.lower[rows] = torch.inf, 0
        size = min(chunk_rows(self.x, len(current.points)), len(self.x))
        filled = torch.cat([rows, rows[:1].expand(-len(rows) % size)])
        parts = [nearest_centroid(self.x[part], current.points) for part in filled.split(size)]
        return torch.cat(parts)[: len(rows)]

    def _search_part(self, rows: Tensor, current: _Centroids) -> Tensor:
        scores = _scores(self.x.index_select(0, rows), current.points, current.squares)
        nearest = self.assignment[rows].clamp_(min=0)
        least, second = _least_beside(scores, nearest)
        # To find where the least stands costs more than to find it: only where it is not the one before.
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
        """How wrong squared distances and scores of rows of these lengths can be."""
        return (lengths + current.longest).square_().mul_(self.rounding).add_(self.least)

    @staticmethod
    def distance(scores: Tensor, lengths: Tensor, reach: Tensor) -> Tensor:
        """The distance that belongs to a score ||c||^2 - 2 x . c, moved by reach before the root."""
        return (scores + lengths.square()).add_(reach).clamp_(min=0).sqrt_()

    def _sum(self, rows: Tensor, old: Tensor, new: Tensor, clusters: int) -> Tensor:
        """Sum the rows of every cluster, from the sums before and the rows that moved where that is safe."""
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
    """Moves the bounds of rows after the centroids, a part at a time, and tells which rows are undecided."""

    def __init__(
        self, steps: BoundedSteps, current: _Centroids, drift: Tensor, movers: Tensor, rest: Tensor
    ) -> None:
        self.steps, self.current, self.drift, self.rest = steps, current, drift, rest
        # One more column, of score infinity, stands for every centroid that is no mover.
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
    """Every row's score in its own column, which becomes infinite, and the least of its others."""
    mine = scores.gather(1, column[:, None])[:, 0]
    return mine, scores.scatter_(1, column[:, None], torch.inf).amin(dim=1)


def decided(upper: Tensor, lower: Tensor, reach: Tensor) -> Tensor:
    """Tell where the plain search must find the same centroid: its two scores are wrong by reach at most."""
    return upper.square().add_(reach, alpha=2) < lower.square()


def _removable(lengths: Tensor) -> bool:
    """Tell whether nothing summed is so much longer than another that its rounding would outlive it."""
    some = lengths[lengths > 0]
    return not len(some) or bool(some.max() < LENGTH_RATIO * some.min())
