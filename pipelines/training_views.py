"""The two views of a training image (HCL, section 6), made from the draws of `pipelines.draws`.

DALI decodes, crops and resizes. On a CPU its operators also make the views, with one pass over the image for
each step; on a GPU one operation of this project (`kernels.views`) computes the same, rounded to float16.

Brightness and contrast (about the image's mean grey) are the formulas of torchvision's ColorJitter. Every
step is clamped to a pixel's range; values stay fractional between steps. DALI differs in two points: hue
rotates the colours in YIQ, not in HSV, and saturation scales them in YIQ too, with coefficients of three
digits (at saturation 0 a channel is off by up to 0.3 % of its range). A change that is not applied has factor
1 or hue 0 and alters nothing beyond rounding (1e-7 of the range); a blur that is not applied is skipped.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from hcl.data.samples import Dataset
from kernels.views import photometric_views
from kernels.views.colours import GREY
from pipelines import dali
from pipelines.decoding import decoder
from pipelines.draws import ViewsConfig, draw_views
from pipelines.files import path_bytes
from pipelines.kept_images import KeptImages
from pipelines.normalise import PIXEL_MEAN, PIXEL_STD, normalise
from pipelines.schedule import PATH, Column, Columns, ScheduledPipeline


class ViewBatch(NamedTuple):
    """Sample indices (B,), and for each requested view (B, 3, size, size) float32, ImageNet-normalised."""

    indices: np.ndarray
    views: tuple[torch.Tensor, ...]


class TrainingViews:
    """Views of a data set's images. A view is a function of (seed, epoch, index, view) alone.

    Batch composition, order and the number of threads change no bit of it (on one kind of device). EXIF
    orientation is not applied: pixels stay as they are stored, like those of the label masks.

    Args:
        dataset: data set of the images; its labels are never read.
        config: ranges of the random draws.
        seed: seed of all draws, at least 0.
        device: "cpu", or a CUDA device, which then decodes and computes the views.
        threads: CPU threads.
        keep_images: whether to decode every image once, at the first batch, and keep it in the device's
            memory; otherwise only the crop is decoded, each time anew. On a CPU both give the same bits.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: ViewsConfig,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        threads: int = 2,
        keep_images: bool = False,
    ) -> None:
        dali.require()
        self.dataset, self.config, self.seed = dataset, config, seed
        self._device, self._threads = torch.device(device), threads
        self._kept = KeptImages(dataset, device=self._device, threads=threads) if keep_images else None
        self._pipelines: dict[int, ScheduledPipeline] = {}

    def batches(
        self, epoch_draw: int, batches: Sequence[np.ndarray], views: tuple[int, ...] = (1, 2)
    ) -> Iterator[ViewBatch]:
        """Iterate over the views of every batch of sample indices, in order; batches may differ in size.

        Args:
            epoch_draw: epoch number of the draws; the same number gives the same views again.
            batches: arrays (n,) of sample indices.
            views: which of the views 1 and 2 to make.

        Raises:
            ValueError: no view or one other than 1 and 2 is requested, or a batch is empty.
            DecodeError: a file cannot be decoded; the error names it.
        """
        if not views or not set(views) <= {1, 2}:
            raise ValueError(f"views must be 1 or 2, got {views}")
        rows = [view - 1 for view in views]

        def load(indices: np.ndarray) -> Columns:
            draws = [draw_views(self.config, self.seed, epoch_draw, int(index)) for index in indices]
            jitter = ([draw.photometric[row] for draw in draws] for row in rows)
            return (*self._paths(indices), [draw.crop for draw in draws], *jitter)

        run = self._pipeline(len(views)).run(batches, load)
        return (ViewBatch(indices, self._finished(outputs)) for indices, outputs in run)

    def _finished(self, outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return the views: the pipeline's outputs, or on a GPU made from its doubled crops and draws."""
        if self._device.type == "cpu":
            return outputs
        doubled, *jitters = outputs
        return photometric_views(doubled, torch.stack(jitters), PIXEL_MEAN, PIXEL_STD).unbind()

    def _paths(self, indices: np.ndarray) -> Columns:
        """Return one column, the paths of the images; none if images are kept."""
        if self._kept is not None:
            return ()
        return ([path_bytes(self.dataset.samples[index].image) for index in indices],)

    def _pipeline(self, views: int) -> ScheduledPipeline:
        if views not in self._pipelines:
            numbers = [Column("FLOAT", 1)] * (1 + views)
            self._pipelines[views] = ScheduledPipeline(
                self._graph,
                numbers if self._kept else [PATH, *numbers],
                self.dataset,
                device=self._device,
                threads=self._threads,
                pictures=self._kept,
            )
        return self._pipelines[views]

    def _graph(self, source: Any, crop: Any, *jitters: Any) -> tuple[Any, ...]:
        image = _crop(source, crop) if self._kept else _decode_crop(source, crop, self._device)
        doubled = dali.fn.resize(image, size=[2 * self.config.size] * 2, dtype=dali.types.FLOAT)
        if self._device.type != "cpu":
            return doubled, *map(_to_gpu, jitters)
        return tuple(self._view(doubled, jitter) for jitter in jitters)

    def _view(self, image: Any, jitter: Any) -> Any:
        image = _color_jitter(image, jitter)
        if self.config.grayscale_probability > 0:
            image = dali.fn.saturation(image, saturation=1 - jitter[5])
        return normalise(dali.fn.resize(_blur(image, jitter[4]), size=[self.config.size] * 2))


def _to_gpu(draws: Any) -> Any:
    """Copy draws to the GPU, where the pipeline's images are."""
    return draws.gpu()


def _decode_crop(path: Any, crop: Any, device: torch.device) -> Any:
    """Decode only the drawn square of the file at `path`."""
    encoded = dali.fn.io.file.read(path)
    anchor, sides = _square(dali.fn.peek_image_shape(encoded, adjust_orientation=False), crop)
    return dali.fn.decoders.image_slice(encoded, anchor, sides, axes=[0, 1], **decoder(device))


def _crop(image: Any, crop: Any) -> Any:
    """Cut the drawn square out of a decoded image."""
    anchor, sides = _square(image.shape(), crop)
    return dali.fn.slice(image, anchor, sides, axes=[0, 1])


def _square(shape: Any, crop: Any) -> tuple[Any, Any]:
    """Anchor and sides of the drawn square: round(share of the shorter side), placed uniformly."""
    extent = dali.fn.cast(shape[:2], dtype=dali.types.FLOAT)
    shorter = dali.fn.reductions.min(extent)
    side = dali.math.max(dali.math.floor(shorter * crop[0] + 0.5), 1.0)
    room = extent - side
    anchor = dali.fn.cast(
        dali.math.min(dali.math.floor((room + 1.0) * crop[1:]), room), dtype=dali.types.INT32
    )
    side = dali.fn.cast(side, dtype=dali.types.INT32)
    return anchor, dali.fn.stack(side, side)


def _color_jitter(image: Any, jitter: Any) -> Any:
    image = _clamp(dali.fn.brightness(image, brightness=jitter[0]))
    image = _clamp(dali.fn.contrast(image, contrast=jitter[1], contrast_center=_mean_grey(image)))
    image = _clamp(dali.fn.saturation(image, saturation=jitter[2]))
    return _clamp(dali.fn.hue(image, hue=jitter[3]))


def _mean_grey(image: Any) -> Any:
    channels = dali.fn.reductions.mean(image, axes=[0, 1])
    # Arguments of DALI's operators must be on the CPU, even if the images are not.
    return dali.fn.reductions.sum(
        channels * dali.types.Constant(list(GREY), dtype=dali.types.FLOAT, device=image.device)
    ).cpu()


def _clamp(image: Any) -> Any:
    return dali.math.clamp(image, 0.0, 255.0)


def _blur(image: Any, sigma: Any) -> Any:
    if sigma > 0:
        image = dali.fn.gaussian_blur(image, sigma=sigma)
    return image
