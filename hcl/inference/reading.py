"""Photographs from files, the next ones read while some are worked on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from hcl.data.photographs import upright


class Read(NamedTuple):
    """A photograph in memory, and its place in the list of files."""

    place: int
    image: Image.Image


def read_ahead(
    paths: Sequence[Path], batch_size: int, pool: Executor, skipped: list[str] | None = None
) -> Iterator[list[Read]]:
    """The photographs in batches; while one is worked on, the pool reads the next, and no more.

    Args:
        paths: of the files.
        batch_size: files at a time; a batch may hold fewer photographs, or none, where files are skipped.
        pool: that reads.
        skipped: gets what is wrong with each file that cannot be used; None to raise it.

    Raises:
        FileNotFoundError, ValueError: as `hcl.data.photographs.upright`, without ``skipped``.
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
