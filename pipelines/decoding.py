"""Settings of DALI's decoders, and the check of which files they can decode: only those are usable."""

import os
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pipelines import dali
from pipelines.files import device_id, path_bytes

GPU_ERRORS = ("CUDA runtime API error", "CUDA driver API error", "CUDA allocation failed")
UNOPENED = "File mapping failed"
BATCH = 8  # images at a time: eight of the largest that `hcl.data.images` accepts take four gigabytes


def decoder(device: torch.device) -> dict[str, Any]:
    """Return the arguments of DALI's decoders: pixels as they are stored, the same on every kind of device.

    Without "fancy upsampling" a GPU repeats the colour samples of JPEGs with subsampled chroma, where a CPU,
    like PIL, interpolates them.
    """
    return {
        "device": "cpu" if device.type == "cpu" else "mixed",
        "adjust_orientation": False,
        "jpeg_fancy_upsampling": True,
    }


def undecodable(
    paths: Iterable[Path], device: torch.device | str = "cpu", *, threads: int = 2
) -> frozenset[Path]:
    """Return the image files that DALI cannot decode on a device; every file is decoded in full.

    Args:
        paths: image files, all of which could be opened shortly before.
        device: where to decode.
        threads: CPU threads of the pipeline.

    Raises:
        RuntimeError: the GPU failed, not the decoding of an image.
        OSError: a file can no longer be opened, for instance because too many files are open.
    """
    unique = list(dict.fromkeys(paths))
    waiting = deque(_groups(unique, BATCH))
    pipeline, found = None, set()
    bar = tqdm(desc="decode every image", total=len(unique), unit="image", leave=False, disable=quiet())
    while waiting:
        group = waiting.popleft()
        pipeline = pipeline or _build(torch.device(device), threads)
        try:
            pipeline.feed_input("path", [path_bytes(path) for path in group])
            pipeline.run()
            bar.update(len(group))
        except RuntimeError as error:
            if of_the_gpu(error):
                raise
            if UNOPENED in str(error):
                raise OSError(f"DALI cannot open files that could be opened before: {error}") from error
            pipeline = None  # after an error it returns nothing more
            if len(group) == 1:
                found.add(group[0])
                bar.update()
            else:
                waiting.extendleft(reversed(_groups(group, (len(group) + 1) // 2)))
    bar.close()
    return frozenset(found)


def of_the_gpu(error: RuntimeError) -> bool:
    """Return whether a DALI error, such as a lack of GPU memory, comes from the GPU, not from an image."""
    return any(sign in str(error) for sign in GPU_ERRORS)


def quiet() -> bool | None:
    """Value of tqdm's `disable`: only rank 0 shows a bar, and only on a terminal (None)."""
    return None if os.environ.get("RANK", "0") == "0" else True


def _build(device: torch.device, threads: int) -> Any:
    @dali.pipeline_def
    def define() -> Any:
        encoded = dali.fn.io.file.read(dali.fn.external_source(name="path", dtype=dali.types.UINT8, ndim=1))
        return dali.fn.decoders.image(encoded, **decoder(device))

    pipeline = define(
        batch_size=BATCH, num_threads=threads, device_id=device_id(device), prefetch_queue_depth=1
    )
    pipeline.build()
    return pipeline


def _groups(paths: Sequence[Path], size: int) -> list[Sequence[Path]]:
    return [paths[start : start + size] for start in range(0, len(paths), size)]
