"""Images of a data set that were decoded once and stay in a device's memory.

DALI's own cache of decoded images (`cache_size`) is of no use here: it knows an image by the name that one of
DALI's file readers gives to it, and it passes over whatever is decoded in part. Here the files are named by a
schedule, which DALI reads as images without a name, and a training view decodes only what it crops.
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

_LOOKED_AT = 256  # images whose sizes stand for all


class KeptImages:
    """Decoded images by their index; the first call decodes the whole data set.

    Args:
        dataset: whose images are kept.
        device: where; on a CUDA device they are decoded there.
        threads: CPU threads of decoding.
    """

    def __init__(self, dataset: Dataset, *, device: torch.device, threads: int) -> None:
        self._dataset, self._device, self._threads = dataset, device, threads
        self._images: list[torch.Tensor] = []

    def __call__(self, indices: np.ndarray) -> Sequence[Any]:
        """The images (H, W, 3) uint8 of some samples, as DALI takes them: numpy's on a CPU, else torch's.

        Raises:
            DecodeError: an image cannot be decoded; it is named.
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
        with tqdm(desc="keep images", total=len(every), unit="image", leave=False, disable=quiet()) as bar:
            for _, (batch,) in pipeline.run(batches, load):
                images += batch
                bar.update(len(batch))
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # DALI reads them on a stream of its own
        return images


def decoded_bytes(dataset: Dataset) -> int:
    """What the decoded images of a data set take, estimated from the sizes of some hundred of them.

    Raises:
        BadImageError: an image cannot be opened.
    """
    chosen = np.linspace(0, len(dataset) - 1, min(len(dataset), _LOOKED_AT)).astype(int)
    total = 0
    for index in chosen:
        with opened(dataset.samples[index].image) as image:
            total += 3 * image.width * image.height
    return total * len(dataset) // len(chosen)
