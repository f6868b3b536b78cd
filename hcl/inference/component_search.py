"""The tokens of many images that are most like some query tokens, an image at a time."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hcl.inference.segmenter import Parts


class Place(NamedTuple):
    """A token in an image, and the tokens of the image that belong with it.

    Attributes:
        path: of the image.
        cell: its row and column in the grid.
        member: (h, w) bool.
    """

    path: Path
    cell: tuple[int, int]
    member: np.ndarray


class Query(NamedTuple):
    """A token to be found again.

    Attributes:
        place: where it is.
        projection: (C,) L2-normalised.
        cluster: its id, of which matches must be; None for any.
    """

    place: Place
    projection: Tensor
    cluster: int | None


class Match(NamedTuple):
    """A token that is like a query, and the cosine of the two."""

    similarity: float
    place: Place


def query_at(path: Path, parts: Parts, cell: tuple[int, int], *, by_cluster: bool) -> Query:
    """The token in a cell of an image as a query."""
    cluster = int(parts.clusters[cell]) if by_cluster and parts.clusters is not None else None
    return Query(_place(path, parts, cell, cluster), parts.projections[cell], cluster)


class Gallery:
    """The most similar images seen so far, for each query; a query's own image does not count.

    Args:
        queries: the tokens.
        size: images to keep for each.
    """

    def __init__(self, queries: list[Query], size: int) -> None:
        self.queries, self.size = queries, size
        self.matches: list[list[Match]] = [[] for _ in queries]
        self._projections = torch.stack([query.projection for query in queries])
        self._clusters = clusters_of(queries)

    def look_at(self, path: Path, parts: Parts) -> None:
        """Take an image's best token for each query, if it is among the best."""
        similarity, places = best_tokens(parts, self._projections, self._clusters)
        width = parts.foreground.shape[1]
        for query, kept, value, place in zip(
            self.queries, self.matches, similarity.tolist(), places.tolist(), strict=True
        ):
            full = len(kept) == self.size
            if path == query.place.path or value == -torch.inf or (full and value <= kept[-1].similarity):
                continue
            kept.append(Match(value, _place(path, parts, divmod(place, width), query.cluster)))
            kept.sort(key=lambda match: -match.similarity)
            del kept[self.size :]


def clusters_of(queries: list[Query]) -> Tensor | None:
    """The clusters (Q,) that matches must be of; None where any will do."""
    clusters = [query.cluster for query in queries if query.cluster is not None]
    return torch.tensor(clusters, device=queries[0].projection.device) if clusters else None


def best_tokens(parts: Parts, projections: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
    """An image's most similar token for each query: its cosine (Q,), and its row-major place (Q,).

    Args:
        parts: of the image.
        projections: (Q, C), L2-normalised.
        clusters: (Q,) that the token must be of; the cosine is -inf where the image has none. None for any.
    """
    similarity = parts.projections.flatten(0, 1) @ projections.T
    if clusters is not None:
        assert parts.clusters is not None
        similarity = similarity.where(parts.clusters.flatten()[:, None] == clusters, -torch.inf)
    best = similarity.max(dim=0)
    return best.values, best.indices


def _place(path: Path, parts: Parts, cell: tuple[int, int], cluster: int | None) -> Place:
    if cluster is None:
        member = torch.zeros_like(parts.foreground)
        member[cell] = True
    else:
        assert parts.clusters is not None
        member = parts.clusters == cluster
    return Place(path, cell, member.cpu().numpy())
