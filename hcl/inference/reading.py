"""Reading photographs from files; the next ones are read while the current ones are processed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from hcl.data.photographs import upright


class Read(NamedTuple):
    """A photograph in memory, and its index in the list of files."""

    place: int
    image: Image.Image


def read_ahead(
    paths: Sequence[Path], batch_size: int, pool: Executor, skipped: list[str] | None = None
) -> Iterator[list[Read]]:
    """Yield photographs in batches; while one batch is processed, the pool reads only the next one.

    Args:
        paths: files to read.
        batch_size: files per batch; a batch may hold fewer photographs, or none, if files are skipped.
        pool: executor that reads the files.
        skipped: list that gets an error message for each file that cannot be used; None to raise the error.

    Raises:
        FileNotFoundError, ValueError: as `hcl.data.photographs.upright`, if ``skipped`` is None.
    """
    following = _begin(paths[:batch_size], pool)
    for start in range(0, len(paths), batch_size):
        current = following
        following = _begin(paths[start + batch_size : start + 2 * batch_size], pool)
        batch = []
        for place, reading in enumerate(current, start):
            try:
                batch.append(Read(place, reading.result()))
            except (ValueError, OSError) as error:
                if skipped is None:
                    raise
                skipped.append(str(error))
        yield batch


def _begin(paths: Sequence[Path], pool: Executor) -> list[Future[Image.Image]]:
    return [pool.submit(upright, path) for path in paths]
