"""Components of the report's images: clusters of their tokens, and which of them to show."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hcl.distributed import World
from hcl.evaluation.clusters import KMeansConfig, cluster, principal_components
from hcl.figures.colours import as_bytes, as_hex, cluster_colours
from hcl.figures.pictures import Cell, crop, data_uri
from hcl.run_report.looked_at import LookedAt

CROP_SIDE = 112


class Components(NamedTuple):
    """Clusters of tokens.

    Attributes:
        ids: (n, h·w) int64 cluster ids.
        distances: (n, h·w) distance of each token to its cluster's centroid.
        clusters: K.
    """

    ids: Tensor
    distances: Tensor
    clusters: int


class Example(NamedTuple):
    """A token of a component with its surroundings, as a data URI, and the name of the image's file."""

    picture: str
    name: str


class Component(NamedTuple):
    """A component for the gallery.

    Attributes:
        number: number of its cluster.
        colour: its colour in the pictures of components.
        images: number of images in which it occurs.
        foreground: share of its tokens that lie in the foreground maps.
        examples: the token nearest to the centroid in each of some images, the nearest first.
    """

    number: int
    colour: str
    images: int
    foreground: float
    examples: list[Example]


def find_components(looked_at: LookedAt, clusters: int, seed: int) -> Components:
    """Run k-means on all tokens, standardised and reduced to 100 dimensions as in the protocols.

    Raises:
        ValueError: there are fewer tokens than clusters.
    """
    config = KMeansConfig(iterations=50, restarts=2)
    world = World.alone(torch.device("cpu"))
    points = principal_components([looked_at.tokens], config.dimensions, world)
    rows = points.flatten(0, 1)
    found = cluster(rows, slice(0, len(rows)), clusters, config, seed=seed, world=world)
    distances = (rows - found.centroids[found.assignment]).norm(dim=1)
    shape = looked_at.tokens.shape[:2]
    return Components(found.assignment.view(shape), distances.view(shape), clusters)


def gallery(
    looked_at: LookedAt, components: Components, foreground: Tensor, *, shown: int, examples: int
) -> list[Component]:
    """Choose the components with the greatest share of foreground, among those in at least two images.

    Args:
        looked_at: the images.
        components: components of their tokens.
        foreground: (n, h, w) bool.
        shown: maximum number of components.
        examples: maximum number of examples of each component, one per image.
    """
    member = torch.nn.functional.one_hot(components.ids, components.clusters).bool()
    images = member.any(dim=1).sum(dim=0)
    inside = (member & foreground.flatten(1)[..., None]).sum(dim=(0, 1))
    shares = inside.double() / member.sum(dim=(0, 1)).clamp(min=1)
    order = shares.where(images >= 2, -1).argsort(descending=True, stable=True)[:shown]
    return [
        Component(
            number,
            as_hex(as_bytes(cluster_colours(np.array(number)))),
            int(images[number]),
            float(shares[number]),
            _examples(looked_at, components, number, examples),
        )
        for number in order.tolist()
        if images[number] >= 2
    ]


def _examples(looked_at: LookedAt, components: Components, number: int, most: int) -> list[Example]:
    distances = components.distances.where(components.ids == number, torch.inf)
    nearest, tokens = distances.min(dim=1)
    order = nearest.argsort(stable=True)[:most]
    return [
        _example(looked_at, image, int(tokens[image]))
        for image in order.tolist()
        if nearest[image] < torch.inf
    ]


def _example(looked_at: LookedAt, image: int, token: int) -> Example:
    cell = Cell(*divmod(token, looked_at.grid[1]))
    cut = crop(looked_at.pictures[image], cell, looked_at.grid)
    return Example(data_uri(cut, CROP_SIDE), looked_at.dataset.samples[image].image.name)
