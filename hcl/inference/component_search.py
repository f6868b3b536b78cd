"""Search for the tokens of many images that are most similar to query tokens, one image at a time."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hcl.inference.segmenter import Parts


class Place(NamedTuple):
    """A token in an image, and the tokens of the image that belong to the same component.

    Attributes:
        path: path of the image.
        cell: row and column of the token in the grid.
        member: (h, w) bool, true for the tokens of the component.
    """

    path: Path
    cell: tuple[int, int]
    member: np.ndarray


class Query(NamedTuple):
    """A token to search for in other images.

    Attributes:
        place: where the token is.
        projection: (C,) L2-normalised.
        cluster: id of the cluster that matches must belong to; None for any cluster.
    """

    place: Place
    projection: Tensor
    cluster: int | None


class Match(NamedTuple):
    """A token that is similar to a query, and the cosine of the two."""

    similarity: float
    place: Place


def query_at(path: Path, parts: Parts, cell: tuple[int, int], *, by_cluster: bool) -> Query:
    """Return the token in a cell of an image as a query."""
    cluster = int(parts.clusters[cell]) if by_cluster and parts.clusters is not None else None
    return Query(_place(path, parts, cell, cluster), parts.projections[cell], cluster)


class Gallery:
    """The most similar images seen so far for each query, except the query's own image.

    Args:
        queries: tokens to search for.
        size: number of images to keep for each query.
    """

    def __init__(self, queries: list[Query], size: int) -> None:
        self.queries, self.size = queries, size
        self.matches: list[list[Match]] = [[] for _ in queries]
        self._projections = torch.stack([query.projection for query in queries])
        self._clusters = clusters_of(queries)

    def look_at(self, path: Path, parts: Parts) -> None:
        """Keep an image's most similar token for each query if it is among the best so far."""
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
    """Return the clusters (Q,) that matches must belong to; None if any cluster will do."""
    clusters = [query.cluster for query in queries if query.cluster is not None]
    return torch.tensor(clusters, device=queries[0].projection.device) if clusters else None


def best_tokens(parts: Parts, projections: Tensor, clusters: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return an image's most similar token for each query: its cosine (Q,) and its row-major index (Q,).

    Args:
        parts: parts of the image.
        projections: (Q, C) projections of the queries, L2-normalised.
        clusters: (Q,) clusters that the token must belong to; the cosine is -inf if the image has no such
            token. None for any cluster.
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
