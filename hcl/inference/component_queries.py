"""Choice of query tokens: those at given points, or tokens that recur in other images and differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hcl.data.images import shown
from hcl.data.photographs import upright
from hcl.data.samples import Dataset
from hcl.inference.component_search import Query, best_tokens, clusters_of, query_at
from hcl.inference.segmenter import Parts, Segmenter

CANDIDATES = 512
"""Maximum number of foreground tokens from which queries are chosen."""


class Looked(NamedTuple):
    """An image and its parts."""

    path: Path
    parts: Parts


def queries_at(
    points: Sequence[str], dataset: Dataset, segmenter: Segmenter, *, by_cluster: bool
) -> list[Query]:
    """Return the tokens at points that are written IMAGE:x,y.

    Args:
        points: x and y are in pixels of the upright image; IMAGE is a file or the name of an image of the
            data set.
        dataset: data set in which names are looked up.
        segmenter: model to run on the images.
        by_cluster: whether matches must belong to the query's cluster.

    Raises:
        FileNotFoundError: an image is neither a file nor in the data set.
        ValueError: a point is malformed or lies outside of its image, or the image cannot be used.
    """
    queries = []
    for point in points:
        name, x, y = _parsed(point)
        path = _found(name, dataset)
        image = upright(path)
        if not (0 <= x < image.width and 0 <= y < image.height):
            raise ValueError(
                f"point {point!r} lies outside {shown(path)}, which has {image.width}x{image.height} pixels"
            )
        parts = segmenter(image)
        rows, columns = parts.foreground.shape
        cell = (y * rows // image.height, x * columns // image.width)
        queries.append(query_at(path, parts, cell, by_cluster=by_cluster))
    return queries


def _parsed(point: str) -> tuple[str, int, int]:
    name, _, place = point.rpartition(":")
    coordinates = place.split(",")
    if not name or len(coordinates) != 2 or not all(value.strip().isdecimal() for value in coordinates):
        raise ValueError(f"point {point!r} must have the form IMAGE:x,y, with x and y in whole pixels")
    return name, int(coordinates[0]), int(coordinates[1])


def _found(name: str, dataset: Dataset) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    for sample in dataset.samples:
        if name in (sample.origin, sample.image.name, sample.image.stem):
            return sample.image
    raise FileNotFoundError(f"image {name!r} of a point is neither a file nor an image of {dataset.name}")


def chosen_queries(images: Sequence[Looked], count: int, matches: int, *, by_cluster: bool) -> list[Query]:
    """Choose foreground tokens that recur in other images and differ from each other.

    Candidates are drawn evenly. Each step chooses the candidate whose recurrence (the mean cosine of the
    nearest token in each of the ``matches`` nearest images) most exceeds its greatest cosine with the queries
    chosen before. At first, one query is chosen from each image.

    Args:
        images: images to choose from.
        count: number of queries.
        matches: number of other images in which a token should recur.
        by_cluster: whether matches must belong to the query's cluster.

    Raises:
        ValueError: no image has any foreground.
    """
    candidates = _candidates(images, by_cluster)
    if not candidates:
        raise ValueError(
            f"none of {len(images)} images has any foreground to choose queries from: give --points"
        )
    projections = torch.stack([candidate.projection for candidate in candidates])
    recurrence = _recurrence(candidates, projections, images, matches)
    owners = [candidate.place.path for candidate in candidates]
    return [candidates[place] for place in _worthiest(projections, recurrence, owners, count)]


def _candidates(images: Sequence[Looked], by_cluster: bool) -> list[Query]:
    """Return foreground tokens; from each image only those surrounded by foreground, if it has any."""
    cells = [
        (image, (row, column)) for image in images for row, column in _inside(image.parts.foreground).tolist()
    ]
    step = -(-len(cells) // CANDIDATES)
    return [
        query_at(image.path, image.parts, cell, by_cluster=by_cluster) for image, cell in cells[:: step or 1]
    ]


def _inside(foreground: Tensor) -> Tensor:
    """Return the cells (n, 2) of a map (h, w) with all neighbours in it, or all cells if there are none."""
    outside = F.max_pool2d((~foreground).float()[None], kernel_size=3, stride=1, padding=1)[0].bool()
    inner = foreground & ~outside
    return (inner if inner.any() else foreground).nonzero()


def _recurrence(
    candidates: list[Query], projections: Tensor, images: Sequence[Looked], matches: int
) -> Tensor:
    """Return each candidate's mean cosine in its best images, (candidates,); a missing match counts as -1."""
    clusters = clusters_of(candidates)
    found = torch.stack([best_tokens(image.parts, projections, clusters)[0] for image in images])
    own = [[image.path == candidate.place.path for candidate in candidates] for image in images]
    found = found.clamp_min(-1).masked_fill(torch.tensor(own, device=found.device), -1)
    return found.topk(min(matches, len(images)), dim=0).values.mean(dim=0)


def _worthiest(projections: Tensor, worth: Tensor, owners: Sequence[Path], count: int) -> list[int]:
    """Choose ``count`` rows in turn, each of the greatest worth minus its greatest cosine with earlier ones.

    No owner gives a second row before every other owner has given one.
    """
    chosen: list[int] = []
    nearest = torch.zeros_like(worth)
    for _ in range(min(count, len(worth))):
        had = {owners[place] for place in chosen}
        later = torch.tensor([owner in had for owner in owners], device=worth.device)
        value = worth - nearest
        value[chosen] = -torch.inf
        chosen.append(int((value if later.all() else value.masked_fill(later, -torch.inf)).argmax()))
        nearest = torch.maximum(nearest, projections @ projections[chosen[-1]])
    return chosen
