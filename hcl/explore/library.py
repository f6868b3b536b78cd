"""The explored data set in memory: its images, resized, and the tokens of all of them."""

import io
from typing import NamedTuple, Self

import torch
from PIL import Image
from torch import Tensor

from hcl.data.photographs import upright
from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.inference import Parts, Segmenter
from hcl.models.vit import Grid
from hcl.progress import progress

QUALITY = 95


class Seen(NamedTuple):
    """A photograph and the model's outputs for it.

    Attributes:
        name: name of its file.
        jpeg: the photograph at the size at which the model saw it.
        grid: (h, w).
        tokens: (h·w, C) float32, L2-normalised projections: the features that HCL clusters.
        foreground: (h, w) bool.
    """

    name: str
    jpeg: bytes
    grid: Grid
    tokens: Tensor
    foreground: Tensor

    @classmethod
    def of(cls, name: str, image: Image.Image, parts: Parts, size: tuple[int, int]) -> Self:
        """Return what is kept of a photograph; ``size`` is the (H, W) at which the model saw it."""
        file = io.BytesIO()
        shown = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
        shown.save(file, format="JPEG", quality=QUALITY)
        tokens = parts.projections.flatten(0, 1).cpu()
        rows, columns = parts.foreground.shape
        return cls(name, file.getvalue(), (rows, columns), tokens, parts.foreground.cpu())

    def picture(self) -> Image.Image:
        """Return the photograph in RGB."""
        return Image.open(io.BytesIO(self.jpeg))


class Nearest(NamedTuple):
    """The token of a library image that is most similar to another token: cosine, image and cell numbers."""

    similarity: float
    image: int
    cell: int


class Library:
    """Images of a data set with their tokens.

    Args:
        name: name of the data set.
        images: at least one image.
    """

    def __init__(self, name: str, images: list[Seen]) -> None:
        self.name, self.images = name, images
        self.tokens = torch.cat([seen.tokens for seen in images])
        self._lengths = [len(seen.tokens) for seen in images]

    def nearest(self, token: Tensor, most: int, *, leave_out: int | None = None) -> list[Nearest]:
        """Find the most similar token in each image; return those of the most similar images.

        Args:
            token: (C,) of unit length.
            most: maximum number of images.
            leave_out: number of an image to leave out, if any.
        """
        found = []
        for image, similarities in enumerate((self.tokens @ token).split(self._lengths)):
            if image != leave_out:
                similarity, cell = similarities.max(dim=0)
                found.append(Nearest(float(similarity), image, int(cell)))
        return sorted(found, reverse=True)[:most]


def fill(dataset: Dataset, segmenter: Segmenter, batch_size: int, world: World) -> Library:
    """Run the model on every image of a data set, with a progress bar.

    Raises:
        FileNotFoundError, ValueError: an image cannot be used.
    """
    seen: list[Seen] = []
    with progress(world, f"tokens of {dataset.name}", "image", total=len(dataset)) as bar:
        for start in range(0, len(dataset), batch_size):
            paths = [sample.image for sample in dataset.samples[start : start + batch_size]]
            images = [upright(path) for path in paths]
            for path, image, parts in zip(paths, images, segmenter.batch(images), strict=True):
                seen.append(Seen.of(path.name, image, parts, segmenter.working_size(*parts.size)))
                bar.update()
    return Library(dataset.name, seen)
