"""Pictures of object components: a token of one image, and similar tokens of others (HCL, section 7)."""

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from hcl.bounds import require_at_least
from hcl.data.checks import check_images, listed
from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.photographs import upright
from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.figures.components import Row, Tile, draw_components
from hcl.files import written_whole
from hcl.inference.component_queries import Looked, chosen_queries, queries_at
from hcl.inference.component_search import Gallery, Match, Place, Query
from hcl.inference.config import InferenceConfig, open_segmenter
from hcl.inference.reading import read_ahead
from hcl.inference.segmenter import Segmenter
from hcl.progress import progress

log = logging.getLogger(__name__)

POOL = 48
"""Number of images from which query tokens are chosen."""
SHOWN_SIDE = 800
"""Longer side in pixels of an image that is drawn."""


@dataclass(kw_only=True)
class ComponentsConfig(InferenceConfig):
    """Draw object components.

    Args:
        data: the images to search, labelled or not (--data.kind, --data.root, --data.split, --data.on_error);
            by default those that the head was trained on.
        output: folder for components.png, and for components.json, which records the position of every token.
        points: query tokens, each as IMAGE:x,y in pixels of the upright image, where IMAGE is a file or
            the name of an image of the data; for several, --points+ A:x,y --points+ B:x,y. Without points,
            queries are chosen: foreground tokens that recur in other images and differ from each other.
        queries: number of queries to choose.
        matches: number of images shown next to each query, the most similar first.
        images: number of images to search, evenly drawn from the data; null for all.
        match: which tokens to show: "cluster" for tokens of the query's own cluster, as published; "nearest"
            for the most similar tokens of any cluster.
    """

    data: DataConfig | None = None
    output: str = "runs/components"
    points: list[str] | str = field(default_factory=list)
    queries: int = 8
    matches: int = 8
    images: int | None = 200
    match: Literal["cluster", "nearest"] = "cluster"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "queries", "matches")
        require_at_least(2, self, "images")


def run(config: ComponentsConfig, world: World) -> None:
    """Draw the components of a data set.

    Raises:
        FileNotFoundError: images, the checkpoint or weights are missing.
        ValueError: a file or a setting is invalid, or several processes were started.
    """
    if world.size > 1:
        raise ValueError(
            f"components draws one picture, but {world.size} processes were started: start only one"
        )
    segmenter = open_segmenter(config, world)
    if config.match == "cluster" and segmenter.banks is None:
        raise ValueError(
            f"{config.checkpoint} holds no clusters (centroids_foreground, centroids_background): use "
            "--match nearest"
        )
    dataset, skipped = _open_images(config, segmenter)
    searched = dataset if config.images is None else dataset.spread_out(config.images)
    with progress(world, f"components in {dataset.name}", "image", total=len(searched)) as bar:
        gallery = _filled(config, segmenter, dataset, searched, skipped, bar)
    if skipped:
        log.warning("left out %d of %d images:\n%s", len(skipped), len(searched), listed(skipped))
    folder = Path(config.output).expanduser()
    _draw(folder / "components.png", gallery)
    _record(folder / "components.json", gallery)
    print(f"{len(gallery.queries)} components drawn: {folder / 'components.png'}")


def _open_images(config: ComponentsConfig, segmenter: Segmenter) -> tuple[Dataset, list[str] | None]:
    """Return the data set, and a list for the errors of skipped files; None if no file may be skipped."""
    data = config.data or segmenter.model.data
    if data is None:
        raise ValueError(
            f"{config.checkpoint} does not record what it was trained on: give --data.kind and --data.root"
        )
    dataset = open_dataset(data)
    if data.on_error == "skip":
        return dataset, []
    check_images(dataset)
    return dataset, None


def _filled(
    config: ComponentsConfig,
    segmenter: Segmenter,
    dataset: Dataset,
    searched: Dataset,
    skipped: list[str] | None,
    bar: tqdm,
) -> Gallery:
    """Return the queries, at given points or chosen, with their matches in the searched images."""
    by_cluster = config.match == "cluster"
    points = [config.points] if isinstance(config.points, str) else config.points
    first = [] if points else [sample.image for sample in searched.spread_out(POOL).samples]
    pool = list(_looked_at(first, segmenter, config, skipped, bar))
    if points:
        queries = queries_at(points, dataset, segmenter, by_cluster=by_cluster)
    else:
        queries = chosen_queries(pool, config.queries, config.matches, by_cluster=by_cluster)
    gallery = Gallery(queries, config.matches)
    seen = frozenset(first)
    rest = [sample.image for sample in searched.samples if sample.image not in seen]
    for looked in chain(pool, _looked_at(rest, segmenter, config, skipped, bar)):
        gallery.look_at(*looked)
    return gallery


def _looked_at(
    paths: Sequence[Path],
    segmenter: Segmenter,
    config: ComponentsConfig,
    skipped: list[str] | None,
    bar: tqdm,
) -> Iterator[Looked]:
    with ThreadPoolExecutor(config.threads) as pool:
        for batch in read_ahead(paths, config.batch_size, pool, skipped):
            parts = segmenter.batch([read.image for read in batch])
            for read, found in zip(batch, parts, strict=True):
                yield Looked(paths[read.place], found)
            bar.update(len(batch))


def _draw(path: Path, gallery: Gallery) -> None:
    rows = (
        Row(_tile(query.place), [_tile(match.place) for match in matches], _caption(query, matches))
        for query, matches in zip(gallery.queries, gallery.matches, strict=True)
    )
    draw_components(path, rows, gallery.size)


def _tile(place: Place) -> Tile:
    image = upright(place.path)
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    return Tile(image, place.cell, place.member)


def _caption(query: Query, matches: Sequence[Match]) -> str:
    name = "nearest tokens" if query.cluster is None else f"cluster {query.cluster}"
    if not matches:
        return f"{name}: not found in other images"
    return f"{name}, cosine {matches[0].similarity:.2f} to {matches[-1].similarity:.2f}"


def _record(path: Path, gallery: Gallery) -> None:
    entries = [
        {
            **_described(query.place),
            "cluster": query.cluster,
            "matches": [{**_described(match.place), "cosine": match.similarity} for match in matches],
        }
        for query, matches in zip(gallery.queries, gallery.matches, strict=True)
    ]
    with written_whole(path) as file:
        file.write(json.dumps({"components": entries}, indent=2).encode())


def _described(place: Place) -> dict[str, Any]:
    """Describe a place: image, row and column of the token, grid, and number of tokens in the component."""
    return {
        "image": str(place.path),
        "cell": list(place.cell),
        "grid": list(place.member.shape),
        "tokens": int(np.count_nonzero(place.member)),
    }
