"""Tokens of a whole data set, stored in files: computed once, then read by every protocol (HCL, section 7).

A store is a folder of arrays with a row for each image. Rows are written as they are computed and then marked
as done, so that interrupted work continues where it stopped. Each rank writes its own rows into the same
files.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from math import inf
from pathlib import Path
from typing import NamedTuple
from warnings import catch_warnings, filterwarnings

import numpy as np
import torch
from torch import Tensor

from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.fingerprint import fingerprint
from hcl.evaluation.framed_images import framed_images
from hcl.evaluation.protocol import Frame, ProtocolConfig
from hcl.evaluation.token_cache import alone_in, changing, in_use, new_store
from hcl.evaluation.tokens import TokenExtractor
from hcl.memory import GIB
from hcl.models.downloads import cache_folder
from hcl.progress import progress
from pipelines.labelled_images import LabelledBatch

logger = logging.getLogger(__name__)

Layout = dict[str, tuple[np.dtype, tuple[int, ...]]]


class TokenStore(NamedTuple):
    """Tokens, attention and labels of every image in the order of the data set, memory-mapped from files.

    Attributes:
        tokens: (images, h·w, C) bfloat16, on the CPU.
        attention: (images, heads, h, w) float32, the attention of [CLS] in the last block.
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
    """Yield the tokens of a data set; those that are not stored yet are computed first, each rank its share.

    Every rank must call this. While one program computes tokens, another that needs the same ones waits. No
    program deletes them before the block ends.

    Raises:
        OSError: the tokens do not fit on the disk, or were removed or altered while they were computed.
        ValueError, DecodeError: an image or a mask cannot be used.
        FloatingPointError: an image's tokens are not finite.
    """
    grid = extractor.grid(config.frame.size)
    layout = _layout(len(dataset), grid, extractor, config.frame)
    folder = _folder(config, fingerprint(dataset, extractor, config.frame))
    output_is_new = not Path(config.output).exists()
    try:
        with ExitStack() as used:
            with _prepared(folder, layout, config, used) if world.is_main else nullcontext():
                world.barrier()
                _fill(folder, layout, config, dataset, extractor, world)
                world.barrier()
                store = _mapped(folder, layout, grid, world)
            yield store
    finally:
        # Files that other ranks have mapped stay readable to them.
        if not config.keep_tokens and world.is_main:
            shutil.rmtree(folder.parent, ignore_errors=True)
            if output_is_new:
                with suppress(OSError):
                    Path(config.output).rmdir()  # fails if something else is in it


def _folder(config: ProtocolConfig, name: str) -> Path:
    if not config.keep_tokens:
        return Path(config.output) / ".tokens" / name
    return Path(config.token_cache or cache_folder() / "tokens").expanduser() / name


@contextmanager
def _prepared(folder: Path, layout: Layout, config: ProtocolConfig, used: ExitStack) -> Iterator[None]:
    """Create the store unless it exists, and keep other programs from filling it until the block ends.

    No program deletes it before ``used`` is closed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        with changing(folder.parent):
            if not _is_sound(folder, layout):
                _make(folder, layout, config.token_cache_gib * GIB if config.keep_tokens else inf)
            used.enter_context(in_use(folder))
        yield


def _fill(
    folder: Path,
    layout: Layout,
    config: ProtocolConfig,
    dataset: Dataset,
    extractor: TokenExtractor,
    world: World,
) -> None:
    """Compute this rank's share of the missing rows."""
    arrays = _open(folder, layout, mode="r+")
    missing = np.flatnonzero(arrays["done"] == 0)
    world.barrier()
    batches = framed_images(dataset, config, missing[world.rank :: world.size], world)
    with progress(world, f"tokens of {dataset.name}", "image", total=len(missing)) as bar:
        for batch in batches:
            _write(arrays, batch, dataset, extractor)
            bar.update(min(len(batch.indices) * world.size, len(missing) - bar.n))


def _mapped(folder: Path, layout: Layout, grid: tuple[int, int], world: World) -> TokenStore:
    arrays = _open(folder, layout, mode="r")
    if not arrays["done"].all():
        raise OSError(
            f"the tokens in {folder} were removed or altered while they were computed: run the command again"
        )
    world.barrier()  # without keep_tokens, the main rank removes the files as soon as it is done with them
    with catch_warnings():
        # Read-only, since Linux refuses writable mappings of files that are larger than its memory.
        filterwarnings("ignore", "The given NumPy array is not writable")
        mapped = [torch.from_numpy(arrays[name]) for name in ("tokens", "attention", "labels")]
    tokens, attention, labels = mapped
    return TokenStore(tokens.view(torch.bfloat16), attention, labels, grid)


def _layout(images: int, grid: tuple[int, int], extractor: TokenExtractor, frame: Frame) -> Layout:
    return {
        "tokens": (np.dtype(np.uint16), (images, grid[0] * grid[1], extractor.channels)),
        "attention": (np.dtype(np.float32), (images, extractor.attention_heads, *grid)),
        "labels": (np.dtype(np.uint8), (images, frame.size, frame.size)),
        "done": (np.dtype(np.uint8), (images,)),
    }


def _write(
    arrays: dict[str, np.memmap], batch: LabelledBatch, dataset: Dataset, extractor: TokenExtractor
) -> None:
    assert batch.labels is not None
    own, attention = extractor(batch.images)
    tokens = own.to(torch.bfloat16)
    finite = tokens.isfinite().flatten(1).all(dim=1) & attention.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        bad = [str(dataset.samples[row].image) for row in batch.indices[~finite.cpu().numpy()]]
        raise FloatingPointError(
            f"the tokens of these images are not finite (NaN or too large): {', '.join(bad)}"
        )
    rows = batch.indices
    arrays["tokens"][rows] = tokens.cpu().view(torch.uint16).numpy()
    arrays["attention"][rows] = attention.cpu().numpy()
    arrays["labels"][rows] = batch.labels.cpu().numpy()
    for name in ("tokens", "attention", "labels"):
        arrays[name].flush()
    arrays["done"][rows] = 1
    arrays["done"].flush()


def _is_sound(folder: Path, layout: Layout) -> bool:
    """Return whether the store exists; delete a damaged one. No other program may be filling it."""
    if not folder.is_dir():
        return False
    try:
        _open(folder, layout, mode="r")
    except (FileNotFoundError, ValueError) as error:
        logger.warning("the tokens kept in %s are damaged (%s): computing them again", folder, error)
        shutil.rmtree(folder)
        return False
    return True


def _make(folder: Path, layout: Layout, limit: float) -> None:
    """Create the arrays of a store; all stores of its folder may take ``limit`` bytes together."""
    needed = sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in layout.values())
    with new_store(folder, needed, limit) as draft:
        for name, (dtype, shape) in layout.items():
            _create(draft / f"{name}.npy", dtype, shape)


def _create(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    offset, size = array.offset, array.nbytes
    del array
    # Mapped files are sparse at first, and a disk that fills up later would kill the process with SIGBUS.
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), offset, max(size, 1))


def _open(folder: Path, layout: Layout, *, mode: str) -> dict[str, np.memmap]:
    """Open the arrays of a store and check their layout; nothing in the files is executed."""
    arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode=mode) for name in layout}
    for name, (dtype, shape) in layout.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not {dtype} {shape}")
    return arrays
