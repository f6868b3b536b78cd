"""Answers to the page's requests: components of a photograph, and where else a part of it occurs."""

import secrets
from collections import OrderedDict
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hcl.evaluation.crf import CRFConfig, refine
from hcl.explore.hierarchy import Cut, Hierarchy
from hcl.explore.library import Library, Nearest, Seen
from hcl.explore.uploads import RefusedError
from hcl.figures.colours import as_bytes, as_hex, cluster_colours
from hcl.figures.pictures import (
    Cell,
    colour_layer,
    crop,
    data_uri,
    heat_layer,
    overlay_uri,
    shade_layer,
)
from hcl.inference import Segmenter

UPLOADS_KEPT = 8
CROP_SIDE = 132


class Point(NamedTuple):
    """A point of a photograph: shares of its width and height, in [0, 1]."""

    x: float
    y: float

    def cell(self, grid: tuple[int, int]) -> Cell:
        """Return the cell of the token at this point."""
        rows, columns = grid
        return Cell(min(int(self.y * rows), rows - 1), min(int(self.x * columns), columns - 1))


class Explorer:
    """Answers the page's requests; several threads may use it.

    Args:
        segmenter: the trained model.
        library: the data set.
        hierarchy: clusters of the library's tokens.
        neighbours: number of places in other images that are shown.
    """

    def __init__(
        self, segmenter: Segmenter, library: Library, hierarchy: Hierarchy, *, neighbours: int
    ) -> None:
        self.segmenter, self.library, self.hierarchy = segmenter, library, hierarchy
        self.neighbours = neighbours
        self._uploads: OrderedDict[str, Seen] = OrderedDict()
        self._lock = Lock()

    def add(self, image: Image.Image) -> str:
        """Run the model on a visitor's photograph, and return the photograph's new key.

        Only the latest `UPLOADS_KEPT` photographs are kept.
        """
        with self._lock:
            parts = self.segmenter(image)
        seen = Seen.of("photograph", image, parts, self.segmenter.working_size(*parts.size))
        key = f"upload-{secrets.token_urlsafe(12)}"
        with self._lock:
            self._uploads[key] = seen
            while len(self._uploads) > UPLOADS_KEPT:
                self._uploads.popitem(last=False)
        return key

    def photograph(self, key: str) -> Seen:
        """Return a photograph by its key: ``upload-...``, or ``data-`` and its number in the library.

        Raises:
            RefusedError: 404 if there is none.
        """
        number = _number_of(key)
        if number is not None and number < len(self.library.images):
            return self.library.images[number]
        with self._lock:
            if key not in self._uploads:
                raise RefusedError(404, "That photograph is no longer available: upload it again.")
            return self._uploads[key]

    def components(self, key: str, clusters: int, *, crf: bool) -> dict[str, Any]:
        """Return all components of a photograph at one number of clusters, JSON-ready."""
        seen, cut = self.photograph(key), self._cut(clusters)
        ids = self._ids(seen, cut, crf)
        return {
            "components": len(np.unique(ids)),
            "clusters": len(cut.names),
            "layer": overlay_uri(colour_layer(cluster_colours(ids))),
        }

    def select(self, key: str, point: Point, clusters: int, *, crf: bool) -> dict[str, Any]:
        """Return the part of a photograph at a point, and where else it occurs, JSON-ready."""
        seen, cut = self.photograph(key), self._cut(clusters)
        cell = point.cell(seen.grid)
        token = seen.tokens[cell.row * seen.grid[1] + cell.column]
        component = int(cut.of_leaf[self.hierarchy.leaf_of(token[None])])
        similarities = (seen.tokens @ token).view(seen.grid).numpy()
        mask = self._ids(seen, cut, crf) == component
        return {
            "cell": cell._asdict(),
            "grid": seen.grid,
            "component": component,
            "colour": as_hex(as_bytes(cluster_colours(np.array(component)))),
            "share": float(mask.mean()),
            "foreground": bool(seen.foreground[cell]),
            "least": float(similarities.min()),
            "heat": overlay_uri(heat_layer(similarities)),
            "mask": overlay_uri(shade_layer(mask)),
            "neighbours": [
                self._neighbour(nearest, component, cut)
                for nearest in self.library.nearest(token, self.neighbours, leave_out=_number_of(key))
            ],
        }

    def _neighbour(self, nearest: Nearest, component: int, cut: Cut) -> dict[str, Any]:
        seen = self.library.images[nearest.image]
        cell = Cell(*divmod(nearest.cell, seen.grid[1]))
        own = cut.of_leaf[self.hierarchy.leaf_of(seen.tokens[nearest.cell][None])]
        return {
            "key": f"data-{nearest.image}",
            "name": seen.name,
            "similarity": nearest.similarity,
            "same": int(own) == component,
            "x": (cell.column + 0.5) / seen.grid[1],
            "y": (cell.row + 0.5) / seen.grid[0],
            "picture": data_uri(crop(np.asarray(seen.picture()), cell, seen.grid, context=3), CROP_SIDE),
        }

    def _cut(self, clusters: int) -> Cut:
        try:
            return self.hierarchy.cut(clusters)
        except ValueError as error:
            raise RefusedError(422, f"{error}.") from error

    def _ids(self, seen: Seen, cut: Cut, crf: bool) -> np.ndarray:
        """Return the component of every token (h, w) or, with a CRF, as `_refined` does."""
        ids = cut.of_leaf[self.hierarchy.leaf_of(seen.tokens)].view(seen.grid)
        return (self._refined(seen, cut, ids) if crf else ids).numpy()

    def _refined(self, seen: Seen, cut: Cut, ids: Tensor) -> Tensor:
        """Refine components (h, w) to (H, W) with a dense CRF; a single component stays (h, w)."""
        present = ids.unique()
        if len(present) == 1:
            return ids
        picture = torch.from_numpy(np.array(seen.picture())).movedim(-1, 0)[None]
        centroids = cut.centroids[torch.isin(cut.names, present)]
        cosines = (seen.tokens @ centroids.T).T.view(1, len(present), *seen.grid)
        # As in HCL's loss, the cosines divided by the temperature are the logits of a token.
        logits = F.interpolate(
            cosines / self.segmenter.model.temperature, size=picture.shape[2:], mode="bilinear"
        )
        with self._lock:
            try:
                refined = refine(logits, picture, CRFConfig())
            except ModuleNotFoundError as error:
                raise RefusedError(501, f"The CRF is not installed: {error}.") from error
        return present[refined.argmax(dim=1)[0]]


def _number_of(key: str) -> int | None:
    """Return the number in the library for a key such as ``data-3``; None for other keys."""
    prefix, _, number = key.partition("-")
    return (
        int(number)
        if prefix == "data" and number.isascii() and number.isdecimal() and len(number) < 9
        else None
    )
