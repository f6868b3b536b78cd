"""Images of a data set, decoded once and kept in a device's memory.

DALI's own cache of decoded images (`cache_size`) cannot be used here: it identifies an image by the name that
one of DALI's file readers gives it, and it skips images that are decoded only in part. Here a schedule names
the files, so that DALI sees images without a name, and a training view decodes only its crop.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hcl.data.images import opened
from hcl.data.samples import Dataset
from pipelines import dali
from pipelines.decoding import BATCH, decoder, quiet
from pipelines.files import path_bytes
from pipelines.schedule import PATH, Columns, ScheduledPipeline

_LOOKED_AT = 256  # images whose sizes are sampled


class KeptImages:
    """Decoded images by their index; the first call decodes the whole data set.

    Args:
        dataset: the data set whose images are kept.
        device: where they are kept; on a CUDA device they are also decoded there.
        threads: CPU threads for decoding.
    """

    def __init__(self, dataset: Dataset, *, device: torch.device, threads: int) -> None:
        self._dataset, self._device, self._threads = dataset, device, threads
        self._images: list[torch.Tensor] = []

    def __call__(self, indices: np.ndarray) -> Sequence[Any]:
        """Return the images (H, W, 3) uint8 of some samples: numpy arrays on a CPU, else torch tensors.

        Raises:
            DecodeError: an image cannot be decoded; the error names it.
        """
        if not self._images:
            self._images = self._decoded()
        images = [self._images[index] for index in indices]
        return [image.numpy() for image in images] if self._device.type == "cpu" else images

    def _decoded(self) -> list[torch.Tensor]:
        dataset, every = self._dataset, np.arange(len(self._dataset))
        batches = [every[start : start + BATCH] for start in range(0, len(every), BATCH)]

        def load(indices: np.ndarray) -> Columns:
            return ([path_bytes(dataset.samples[index].image) for index in indices],)

        def graph(path: Any) -> tuple[Any, ...]:
            return (dali.fn.decoders.image(dali.fn.io.file.read(path), **decoder(self._device)),)

        pipeline = ScheduledPipeline(
            graph, [PATH], dataset, device=self._device, threads=self._threads, ragged=True
        )
        images: list[torch.Tensor] = []
        with tqdm(desc="decode images", total=len(every), unit="image", leave=False, disable=quiet()) as bar:
            for _, (batch,) in pipeline.run(batches, load):
                images += batch
                bar.update(len(batch))
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # DALI reads them on a stream of its own
        return images


def decoded_bytes(dataset: Dataset) -> int:
    """Estimate the bytes that a data set's decoded images take, from the sizes of up to 256 of them.

    Raises:
        BadImageError: an image cannot be opened.
    """
    chosen = np.linspace(0, len(dataset) - 1, min(len(dataset), _LOOKED_AT)).astype(int)
    total = 0
    for index in chosen:
        with opened(dataset.samples[index].image) as image:
            total += 3 * image.width * image.height
    return total * len(dataset) // len(chosen)
