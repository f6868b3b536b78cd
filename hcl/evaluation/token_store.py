"""Tokens of a whole data set, kept in files: computed once, read by every protocol after (HCL, section 7).

A store is a folder of arrays with a row for each image. Rows are written as they are computed and then marked
as done, so that work that was cut short goes on where it stopped; ranks write rows of their own into the same
files.
"""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.fingerprint import fingerprint
from hcl.evaluation.framed_images import framed_images
from hcl.evaluation.protocol import Frame, ProtocolConfig
from hcl.evaluation.token_cache import alone_in, make_room, mark_used
from hcl.evaluation.tokens import TokenExtractor
from hcl.memory import GIB
from hcl.models.downloads import cache_folder
from hcl.progress import progress
from pipelines.labelled_images import LabelledBatch

logger = logging.getLogger(__name__)

Layout = dict[str, tuple[np.dtype, tuple[int, ...]]]


class TokenStore(NamedTuple):
    """Every image's tokens, attention and labels in the order of the data set, mapped from files.

    Attributes:
        tokens: (images, h·w, C) bfloat16, on the CPU.
        attention: (images, heads, h, w) float32: what [CLS] attends to in the last block.
        labels: (images, size, size) uint8.
        grid: (h, w).
    """

    tokens: Tensor
    attention: Tensor
    labels: Tensor
    grid: tuple[int, int]

    def __len__(self) -> int:
        return len(self.labels)


@contextmanager
def stored_tokens(
    config: ProtocolConfig, dataset: Dataset, extractor: TokenExtractor, world: World
) -> Iterator[TokenStore]:
    """The tokens of a data set: those that are kept already, the rest computed now, each rank its share.

    Every rank must call this. While one program computes tokens, another that wants the same ones waits.

    Raises:
        OSError: there is not enough room for them.
        ValueError, DecodeError: an image or a mask cannot be used.
    """
    name = fingerprint(dataset, extractor, config.frame)
    if config.keep_tokens:
        folder = Path(config.token_cache or cache_folder() / "tokens").expanduser() / name
    else:
        folder = Path(config.output) / ".tokens" / name
    try:
        yield _filled(folder, config, dataset, extractor, world)
    finally:
        # What other ranks have mapped stays readable to them.
        if not config.keep_tokens and world.is_main:
            shutil.rmtree(folder.parent, ignore_errors=True)


def _filled(
    folder: Path, config: ProtocolConfig, dataset: Dataset, extractor: TokenExtractor, world: World
) -> TokenStore:
    grid = extractor.grid(config.frame.size)
    layout = _layout(len(dataset), grid, extractor, config.frame)
    with ExitStack() as stack:
        if world.is_main:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone_in(folder))
            _prepare(folder, layout, config.token_cache_gib if config.keep_tokens else inf)
            mark_used(folder)
        world.barrier()
        arrays = _open(folder, layout, mode="r+")
        missing = np.flatnonzero(arrays["done"] == 0)
        world.barrier()
        batches = framed_images(dataset, config, missing[world.rank :: world.size], world)
        with progress(world, f"tokens of {dataset.name}", "image", total=len(missing)) as bar:
            for batch in batches:
                _write(arrays, batch, extractor)
                bar.update(min(len(batch.indices) * world.size, len(missing) - bar.n))
        world.barrier()
    arrays = _open(folder, layout, mode="c")
    world.barrier()  # where tokens are not kept, the main rank removes them as soon as it has done with them
    tokens, attention, labels = (torch.from_numpy(arrays[name]) for name in ("tokens", "attention", "labels"))
    return TokenStore(tokens.view(torch.bfloat16), attention, labels, grid)


def _layout(images: int, grid: tuple[int, int], extractor: TokenExtractor, frame: Frame) -> Layout:
    return {
        "tokens": (np.dtype(np.uint16), (images, grid[0] * grid[1], extractor.channels)),
        "attention": (np.dtype(np.float32), (images, extractor.attention_heads, *grid)),
        "labels": (np.dtype(np.uint8), (images, frame.size, frame.size)),
        "done": (np.dtype(np.uint8), (images,)),
    }


def _write(arrays: dict[str, np.memmap], batch: LabelledBatch, extractor: TokenExtractor) -> None:
    assert batch.labels is not None
    tokens, attention = extractor(batch.images)
    rows = batch.indices
    arrays["tokens"][rows] = tokens.to("cpu", torch.bfloat16).view(torch.uint16).numpy()
    arrays["attention"][rows] = attention.cpu().numpy()
    arrays["labels"][rows] = batch.labels.cpu().numpy()
    for name in ("tokens", "attention", "labels"):
        arrays[name].flush()
    arrays["done"][rows] = 1
    arrays["done"].flush()


def _prepare(folder: Path, layout: Layout, limit: float) -> None:
    """Make the folder's arrays, unless they are there, beside others of so many GiB at most with them."""
    if folder.is_dir():
        try:
            _open(folder, layout, mode="r")
            return
        except (OSError, ValueError) as error:
            logger.warning("the tokens kept in %s are damaged (%s): computing them again", folder, error)
            shutil.rmtree(folder)
    needed = sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in layout.values())
    make_room(folder.parent, needed, limit * GIB)
    _refuse_without_room(folder.parent, needed)
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    for name, (dtype, shape) in layout.items():
        _create(draft / f"{name}.npy", dtype, shape)
    draft.rename(folder)


def _refuse_without_room(cache: Path, needed: int) -> None:
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"tokens need {needed / GIB:.1f} GiB, but {cache} has {free / GIB:.1f} GiB: "
            "choose another folder by --token_cache",
        )


def _create(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    offset, size = array.offset, array.nbytes
    del array
    # Mapped files are sparse at first, and a disk that fills up later would end the process by SIGBUS.
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), offset, max(size, 1))


def _open(folder: Path, layout: Layout, *, mode: str) -> dict[str, np.memmap]:
    """The arrays of a store, checked against their layout; nothing in the files is executed."""
    arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode=mode) for name in layout}
    for name, (dtype, shape) in layout.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not {dtype} {shape}")
    return arrays
