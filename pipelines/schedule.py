"""A DALI pipeline that is built once and run on one schedule of batches after another."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from hcl.data.checks import image_problem
from hcl.data.images import DecodeError, shown
from hcl.data.samples import Dataset
from pipelines import dali
from pipelines.decoding import of_the_gpu, undecodable
from pipelines.files import device_id

Columns = tuple[list[np.ndarray], ...]


Load = Callable[[np.ndarray], Columns]
Pictures = Callable[[np.ndarray], Sequence[Any]]
Outputs = tuple[Any, ...]


class Column(NamedTuple):
    """One input of a pipeline, for which `load` returns one array per sample of a batch."""

    dtype: Literal["UINT8", "FLOAT"]
    ndim: int
    layout: str = ""


PATH = Column("UINT8", 1)


class ScheduledPipeline:
    """Runs a graph of DALI operators over batches of a data set's images, prefetching two batches ahead.

    Args:
        graph: takes one DALI node per column and returns a tuple of outputs, each one tensor per batch.
        columns: the inputs of the graph; the first is the path of the image (`path_bytes`), unless `pictures`
            is given.
        dataset: data set whose files are named in errors.
        device: device of the outputs; on a CUDA device images are also decoded there.
        threads: CPU threads of the pipeline.
        pictures: returns the decoded images (H, W, 3) uint8 of a batch on the device; they become the graph's
            first node, before the columns. On a GPU they are copied on a separate stream, so that they must
            be complete when they are returned and must not change afterwards.
        ragged: whether an output is a list of tensors, one per sample, which may differ in shape.
    """

    def __init__(
        self,
        graph: Callable[..., tuple[Any, ...]],
        columns: Sequence[Column],
        dataset: Dataset,
        *,
        device: torch.device,
        threads: int,
        pictures: Pictures | None = None,
        ragged: bool = False,
    ) -> None:
        dali.require()
        self._graph, self._columns, self._dataset = graph, columns, dataset
        self._device, self._threads = device, threads
        self._pictures, self._ragged = pictures, ragged
        self._resting: _Built | None = None

    def run(self, batches: Sequence[np.ndarray], load: Load) -> Iterator[tuple[np.ndarray, Outputs]]:
        """Yield (indices, outputs) for every batch of sample indices, in order; batches may differ in size.

        `load` returns a batch's columns; its exceptions and errors of the GPU reach the caller. An image that
        cannot be decoded raises a DecodeError that names it. If a run ends early, by an error or because the
        caller stops iterating, the next run has to build the pipeline again.
        """
        if any(len(indices) == 0 for indices in batches):
            raise ValueError("a batch needs at least one image")
        if not batches:
            return
        built = self._take(max(len(indices) for indices in batches))
        built.feed.batches, built.feed.load = batches, load
        for indices in batches:
            yield indices, self._outputs(built.pipeline, indices)
        with suppress(StopIteration):
            built.pipeline.run()
        built.pipeline.reset()
        self._resting = built

    def _take(self, largest: int) -> "_Built":
        """Take the idle pipeline, or build a new one; it is put back only after a complete run."""
        built, self._resting = self._resting, None
        return built if built is not None and largest <= built.largest else self._build(largest)

    def _build(self, largest: int) -> "_Built":
        feed = _Feed()

        @dali.pipeline_def(enable_conditionals=True)
        def define() -> Any:
            inputs = dali.fn.external_source(
                source=feed,
                num_outputs=len(self._columns),
                batch=True,
                batch_info=True,
                dtype=[getattr(dali.types, column.dtype) for column in self._columns],
                ndim=[column.ndim for column in self._columns],
                layout=[column.layout for column in self._columns],
            )
            return self._graph(*self._picture_node(feed), *inputs)

        pipeline = define(
            batch_size=largest,
            num_threads=self._threads,
            device_id=device_id(self._device),
            prefetch_queue_depth=2,
        )
        pipeline.build()
        return _Built(pipeline, feed, largest)

    def _picture_node(self, feed: "_Feed") -> list[Any]:
        if self._pictures is None:
            return []

        def source(info: Any) -> Sequence[Any]:
            assert self._pictures is not None
            return self._pictures(feed.indices(info))

        on_gpu = self._device.type == "cuda"
        return [
            dali.fn.external_source(
                source=source,
                device="gpu" if on_gpu else "cpu",
                # On torch's current stream the copy would wait for all training work queued there.
                cuda_stream=torch.cuda.Stream(self._device) if on_gpu else None,
                batch=True,
                batch_info=True,
                dtype=dali.types.UINT8,
                ndim=3,
                layout="HWC",
            )
        ]

    def _outputs(self, pipeline: Any, indices: np.ndarray) -> Outputs:
        try:
            outputs = pipeline.run()
        except RuntimeError as error:
            # DALI raises RuntimeError itself; torch and `pictures` raise subclasses of it.
            if type(error) is not RuntimeError or of_the_gpu(error):
                raise
            raise DecodeError(self._blame(indices, str(error))) from error
        return tuple(self._output(output) for output in outputs)

    def _output(self, batch: Any) -> torch.Tensor | list[torch.Tensor]:
        if self._ragged:
            return [_to_torch(sample, self._device) for sample in batch]
        return _to_torch(batch.as_tensor(), self._device)

    def _blame(self, indices: np.ndarray, said: str) -> str:
        """Name the images at fault; if none is found, the whole batch, with DALI's message."""
        samples = dict.fromkeys(self._dataset.samples[index] for index in indices)
        bad = undecodable((s.image for s in samples if not image_problem(s.image)), self._device)
        reasons = {s: "cannot be decoded" if s.image in bad else image_problem(s.image) for s in samples}
        guilty = [f"{shown(s.image)} {reason} ({shown(s.origin)})" for s, reason in reasons.items() if reason]
        if guilty:
            return "\n".join(["DALI could not process these images:", *guilty])
        batch = [f"{shown(s.image)} ({shown(s.origin)})" for s in samples]
        own = said.rpartition("encountered:")[2].strip()
        return "\n".join(["DALI could not process one of these images:", *batch, f"DALI reports: {own}"])


class _Feed:
    """The source that a pipeline calls for its next batch; its schedule is set before every run."""

    batches: Sequence[np.ndarray]
    load: Load

    def __call__(self, info: Any) -> Columns:
        return self.load(self.indices(info))

    def indices(self, info: Any) -> np.ndarray:
        """Return the sample indices of a batch; raise StopIteration after the last."""
        if info.iteration >= len(self.batches):
            raise StopIteration
        return self.batches[info.iteration]


class _Built(NamedTuple):
    pipeline: Any
    feed: _Feed
    largest: int


def _to_torch(tensor: Any, device: torch.device) -> torch.Tensor:
    """Copy a DALI tensor, because DALI writes the next batch into the same memory."""
    dtype = {dali.types.FLOAT: torch.float32, dali.types.UINT8: torch.uint8}[tensor.dtype]
    from nvidia.dali.plugin.pytorch import feed_ndarray

    copy = torch.empty(tensor.shape(), dtype=dtype, device=device)
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
    return feed_ndarray(tensor, copy, cuda_stream=stream)
