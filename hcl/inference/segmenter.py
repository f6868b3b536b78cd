"""From a photograph to its object components in one call (HCL, sections 1 to 5)."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hcl.data.photographs import Photograph, upright
from hcl.distributed import DeviceName, choose_device
from hcl.evaluation.tokens import TokenExtractor
from hcl.inference.trained_model import TrainedModel, open_trained
from hcl.models.head_files import Branch
from hcl.models.vit import Grid
from hcl.precision import Precision
from kernels.foreground import foreground_mask
from kernels.kmeans import nearest_centroid
from pipelines.normalise import MEAN, STD


class Parts(NamedTuple):
    """Output of the model for one photograph, on the grid (h, w) of its patches, on the segmenter's device.

    Attributes:
        tokens: (h, w, E) float32 component tokens.
        projections: (h, w, C) float32, L2-normalised: the features that are clustered.
        foreground: (h, w) bool.
        clusters: (h, w) int64: the nearest centroid of the token's bank; ids of the background's bank follow
            those of the foreground's. None if the checkpoint has no centroids.
        size: (H, W) in pixels of the upright photograph, which the grid covers.
    """

    tokens: Tensor
    projections: Tensor
    foreground: Tensor
    clusters: Tensor | None
    size: tuple[int, int]


class Segmenter:
    """A trained head and its backbone, ready for photographs.

    Args:
        model: model from `open_trained`.
        size: photographs are resized to an area of about ``size`` x ``size`` pixels and keep their shape.
        device: device to compute on.
        precision: precision of the forward pass.

    Attributes:
        model: backbone, head, centroids and the settings that go with them.
        size: as above.
        device: device of the results.

    Raises:
        ValueError: head and backbone do not fit, or the size is smaller than a patch of the coarsest level.
    """

    def __init__(
        self,
        model: TrainedModel,
        *,
        size: int = 448,
        device: DeviceName | torch.device = "auto",
        precision: Precision = "fp32",
    ) -> None:
        self.device = device if isinstance(device, torch.device) else choose_device(device)
        self.extractor = TokenExtractor(
            model.backbone, "head", model.head, device=self.device, precision=precision
        )
        self.model = model
        self.size = size
        if size < model.backbone.patch_sizes[-1]:
            raise ValueError(
                f"size {size} is smaller than a patch of the coarsest level: choose at least "
                f"{model.backbone.patch_sizes[-1]}, such as 448"
            )

    @classmethod
    def open(
        cls,
        checkpoint: str | Path,
        *,
        backbone: str | None = None,
        weights: str | Path | None = None,
        patch_sizes: list[int] | None = None,
        branch: Branch = "momentum",
        heads: int | None = None,
        size: int = 448,
        device: DeviceName | torch.device = "auto",
        precision: Precision = "fp32",
    ) -> Self:
        """Open a checkpoint of this program or a published one; raises the errors of `open_trained`."""
        model = open_trained(
            checkpoint,
            backbone=backbone,
            weights=weights,
            patch_sizes=patch_sizes,
            branch=branch,
            heads=heads,
        )
        return cls(model, size=size, device=device, precision=precision)

    def __call__(self, photograph: Photograph) -> Parts:
        """Return the parts of one photograph.

        Raises:
            FileNotFoundError, ValueError: as `hcl.data.photographs.upright`.
        """
        return self.batch([photograph])[0]

    def batch(self, photographs: Sequence[Photograph]) -> list[Parts]:
        """Return the parts of photographs, in their order; those of one working size share a forward pass."""
        images = [upright(photograph) for photograph in photographs]
        sizes = [self.working_size(image.height, image.width) for image in images]
        parts: dict[int, Parts] = {}
        for size, indices in together(sizes).items():
            found = self._parts([images[index] for index in indices], size)
            parts.update(zip(indices, found, strict=True))
        return [parts[index] for index in range(len(images))]

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (H, W) in pixels to which a photograph is resized.

        The area is about that of a square with side ``size``, so that photographs of all shapes take the same
        work. Each side is a multiple of the coarsest patch size if the finer ones divide it, otherwise of the
        finest, and holds at least one patch of the coarsest level.
        """
        sizes = self.model.backbone.patch_sizes
        step = sizes[-1] if all(sizes[-1] % size == 0 for size in sizes) else sizes[0]
        least = -(-sizes[-1] // step) * step
        scale = self.size / math.sqrt(height * width)
        rows, columns = (max(round(side * scale / step) * step, least) for side in (height, width))
        return rows, columns

    @torch.no_grad()
    def _parts(self, images: Sequence[Image.Image], size: tuple[int, int]) -> list[Parts]:
        grid = self.grid(size)
        assert self.extractor.head is not None
        tokens, attention = self.extractor(torch.stack([_normalised(image, size) for image in images]))
        tokens = tokens.clone()  # not a tensor of inference mode, so that a caller may train on it
        projections = self.extractor.head.project(tokens)
        foreground = foreground_mask(attention.clone(), self.model.keep_mass)
        clusters = self._clusters(projections, foreground)
        return [
            Parts(
                tokens[row].unflatten(0, grid),
                projections[row].unflatten(0, grid),
                foreground[row],
                None if clusters is None else clusters[row],
                (image.height, image.width),
            )
            for row, image in enumerate(images)
        ]

    def grid(self, size: tuple[int, int]) -> Grid:
        """Return the rows and columns of tokens at a working size."""
        patch = self.model.backbone.patch_sizes[0]
        return size[0] // patch, size[1] // patch

    @cached_property
    def banks(self) -> tuple[Tensor, Tensor] | None:
        """The foreground's and the background's centroids on the device; None if there are none."""
        if self.model.centroids is None:
            return None
        foreground, background = self.model.centroids
        return foreground.to(self.device), background.to(self.device)

    def _clusters(self, projections: Tensor, foreground: Tensor) -> Tensor | None:
        """Map projections (B, h·w, C) and foreground (B, h, w) to cluster ids (B, h, w)."""
        if self.banks is None:
            return None
        of_foreground, of_background = (
            nearest_centroid(projections.flatten(0, 1), bank).view(foreground.shape) for bank in self.banks
        )
        return torch.where(foreground, of_foreground, of_background + len(self.banks[0]))


def together(sizes: Sequence[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """Return the indices at which each size occurs."""
    places: dict[tuple[int, int], list[int]] = {}
    for place, size in enumerate(sizes):
        places.setdefault(size, []).append(place)
    return places


def pixels_at(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Resize an RGB image to a size (H, W), with smoothing when it shrinks; returns (3, H, W) uint8."""
    resized = np.array(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return torch.from_numpy(resized).permute(2, 0, 1)


def _normalised(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Resize an RGB image to a size (H, W) and normalise it as for ImageNet; returns (3, H, W) float32."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels_at(image, size) / 255 - mean) / std
