"""Images with their masks: for evaluation, and augmented for the linear classifier (HCL, section 7).

Image and mask go through the same geometric transforms, the image with bilinear interpolation (antialiased
when it shrinks), the mask with nearest neighbour. PIL reads the masks, because DALI would turn palette
indices into colours.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from hcl.data.samples import IGNORE, Dataset, read_label
from pipelines import dali
from pipelines.decoding import decoder
from pipelines.draws import ProbeConfig, ProbeDraws, draw_probe
from pipelines.files import path_bytes
from pipelines.normalise import normalise
from pipelines.schedule import PATH, Column, Columns, ScheduledPipeline

Mode = Literal["resize", "shorter-crop"]
LABEL = Column("UINT8", 3, "HWC")
MATRIX = Column("FLOAT", 2)
FLAG = Column("FLOAT", 0)


class LabelledBatch(NamedTuple):
    """One batch of images and masks.

    images (B, 3, size, size) float32, ImageNet-normalised; labels (B, size, size) uint8, 255 where ignored,
    or None for a data set without masks; indices (B,) of the samples.
    """

    images: torch.Tensor
    labels: torch.Tensor | None
    indices: np.ndarray


class EvaluationImages:
    """Batches of every chosen image, once and in order; can be iterated several times.

    Args:
        dataset: data set with or without masks (without: `labels` is None).
        size: side of the images in pixels.
        mode: "resize" stretches to size x size (PVOC); "shorter-crop" resizes the shorter side to `size` and
            crops the centre (COCO-Stuff).
        batch_size: images per batch; the last batch may be smaller.
        device: device of the batches; on a CUDA device images are also decoded there.
        threads: CPU threads of the pipeline; the same number of further threads reads masks.
        indices: the samples to load, in this order; by default all, in the order of the data set.

    Raises:
        ValueError: during iteration, a mask is missing or unreadable, does not fit its image or holds a value
            that is no class (`read_label`).
        DecodeError: during iteration, an image cannot be decoded; the error names it.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        size: int,
        mode: Mode = "resize",
        batch_size: int = 16,
        device: torch.device | str = "cpu",
        threads: int = 2,
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._dataset, self._threads = dataset, threads
        self._square = _Square(size, mode, torch.device(device))
        chosen = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
        self._batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
        columns = [PATH, LABEL] if dataset.labelled else [PATH]
        self._pipeline = ScheduledPipeline(
            self._graph, columns, dataset, device=self._square.device, threads=threads
        )

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[LabelledBatch]:
        with _LabelReader(self._dataset, self._batches, self._threads) as labels:

            def load(indices: np.ndarray) -> Columns:
                return (_paths(self._dataset, indices), *labels.read())

            for indices, (images, *masks) in self._pipeline.run(self._batches, load):
                yield LabelledBatch(images, masks[0] if masks else None, indices)

    def _graph(self, path: Any, *masks: Any) -> tuple[Any, ...]:
        image = normalise(self._square.image(path))
        return (image, *(dali.fn.squeeze(self._square.label(mask), axes=[2]) for mask in masks))


class ProbeViews:
    """The linear classifier's training images, zoomed, rotated, mirrored, cropped, blurred (HCL, section 7).

    The augmentation starts from the images of `EvaluationImages`. Its geometry is one affine map; places
    outside the image get the mean colour and label 255. As in `TrainingViews`, a view is a function of
    (seed, epoch, index) alone.

    Args:
        dataset: data set with masks.
        config: ranges of the random draws.
        size: as in `EvaluationImages`.
        mode: as in `EvaluationImages`.
        seed: seed of all draws, at least 0.
        device: as in `EvaluationImages`.
        threads: as in `EvaluationImages`.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: ProbeConfig,
        *,
        size: int,
        mode: Mode = "resize",
        seed: int,
        device: torch.device | str = "cpu",
        threads: int = 2,
    ) -> None:
        self.dataset, self.config, self.seed = dataset, config, seed
        self._square, self._threads = _Square(size, mode, torch.device(device)), threads
        self._pipeline = ScheduledPipeline(
            self._graph, [PATH, LABEL, MATRIX, FLAG], dataset, device=self._square.device, threads=threads
        )

    def batches(self, epoch_draw: int, batches: Sequence[np.ndarray]) -> Iterator[LabelledBatch]:
        """Yield the augmented images and masks of every batch of sample indices, in order.

        Raises:
            ValueError, DecodeError: as in `EvaluationImages`, and if a batch is empty.
        """
        with _LabelReader(self.dataset, batches, self._threads) as labels:

            def load(indices: np.ndarray) -> Columns:
                draws = [draw_probe(self.config, self.seed, epoch_draw, int(index)) for index in indices]
                matrices = [source_of_target(draw, self._square.size) for draw in draws]
                blurred = [np.array(draw.blur, np.float32) for draw in draws]
                return (_paths(self.dataset, indices), *labels.read(), matrices, blurred)

            for indices, (images, masks) in self._pipeline.run(batches, load):
                yield LabelledBatch(images, masks, indices)

    def _graph(self, path: Any, mask: Any, matrix: Any, blurred: Any) -> tuple[Any, ...]:
        # Normalised first, so that the fill value 0 is the mean colour.
        image = normalise(self._square.image(path), layout="HWC")
        image = _blur(dali.fn.warp_affine(image, matrix=matrix, fill_value=0.0), blurred)
        label = dali.fn.warp_affine(
            self._square.label(mask),
            matrix=matrix,
            fill_value=float(IGNORE),
            interp_type=dali.types.INTERP_NN,
        )
        return dali.fn.transpose(image, perm=[2, 0, 1]), dali.fn.squeeze(label, axes=[2])


def source_of_target(draw: ProbeDraws, size: int) -> np.ndarray:
    """Return the affine map (2, 3) float32 from positions in the augmented view to the source square.

    The source is zoomed, rotated about its centre, mirrored, and cropped to `size` at a drawn position; if
    the zoom has made it smaller than `size`, it is padded evenly first. Positions are (x, y, 1), from the
    corner of the first pixel.
    """
    extent = draw.scale * size
    room = extent - size
    left, top = (room * share if room > 0 else room / 2 for share in (draw.left, draw.top))
    cos, sin = np.cos(np.radians(draw.angle)), np.sin(np.radians(draw.angle))
    rotate = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    mirror = np.diag([-1.0 if draw.flip else 1.0, 1, 1])
    centre = _shift(extent / 2, extent / 2)
    zoom = np.diag([draw.scale, draw.scale, 1])
    target_of_source = _shift(-left, -top) @ centre @ mirror @ rotate @ np.linalg.inv(centre) @ zoom
    return np.linalg.inv(target_of_source)[:2].astype(np.float32)


@dataclass(frozen=True)
class _Square:
    """Decodes images, and brings images and masks to one size."""

    size: int
    mode: Mode
    device: torch.device

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")
        if self.mode not in ("resize", "shorter-crop"):
            raise ValueError(f"mode must be 'resize' or 'shorter-crop', got {self.mode!r}")

    def image(self, path: Any) -> Any:
        """Decode and resize the file at `path`. (size, size, 3) float32 in [0, 255]."""
        image = dali.fn.decoders.image(dali.fn.io.file.read(path), **decoder(self.device))
        return self._fit(image, interp_type=dali.types.INTERP_LINEAR, dtype=dali.types.FLOAT)

    def label(self, mask: Any) -> Any:
        """Resize a mask (H, W, 1). (size, size, 1) uint8."""
        mask = mask if self.device.type == "cpu" else mask.gpu()
        return self._fit(mask, interp_type=dali.types.INTERP_NN)

    def _fit(self, image: Any, **how: Any) -> Any:
        if self.mode == "resize":
            return dali.fn.resize(image, size=[self.size, self.size], **how)
        return dali.fn.crop(
            dali.fn.resize(image, resize_shorter=self.size, **how), crop=[self.size, self.size]
        )


class _LabelReader:
    """Reads the masks of a schedule of batches in threads, one batch ahead."""

    def __init__(self, dataset: Dataset, batches: Sequence[np.ndarray], threads: int) -> None:
        self._dataset = dataset
        self._ahead = iter(batches if dataset.labelled else ())
        self._reading: deque[list[Future[np.ndarray]]] = deque()
        self._pool = ThreadPoolExecutor(threads)
        self._start_next()

    def __enter__(self) -> "_LabelReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def read(self) -> Columns:
        """Return one column, the masks (H, W, 1) of the next batch; none for a data set without masks."""
        self._start_next()
        return ([mask.result() for mask in self._reading.popleft()],) if self._reading else ()

    def _start_next(self) -> None:
        indices = next(self._ahead, None)
        if indices is not None:
            self._reading.append([self._pool.submit(self._mask, index) for index in indices])

    def _mask(self, index: int) -> np.ndarray:
        return read_label(self._dataset.samples[index], self._dataset)[..., None]


def _paths(dataset: Dataset, indices: np.ndarray) -> list[np.ndarray]:
    return [path_bytes(dataset.samples[index].image) for index in indices]


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _blur(image: Any, applied: Any) -> Any:
    if applied > 0:
        image = dali.fn.gaussian_blur(image, window_size=5)
    return image
