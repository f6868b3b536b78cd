"""A folder of token stores that does not grow without end: those used longest ago make room for new ones."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hcl.memory import GIB

logger = logging.getLogger(__name__)


@contextmanager
def alone_in(store: Path) -> Iterator[None]:
    """Keep other programs out of a store; a lock whose holder died is free."""
    lock = _lock(store)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another program is at the tokens in %s: waiting for it", store)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def mark_used(store: Path) -> None:
    """Note that a store is used now."""
    os.utime(store)


def make_room(cache: Path, needed: int, limit: float) -> None:
    """Delete the stores used longest ago until a new one fits, or nothing is left to delete.

    Those that another program fills are left alone; what a program has mapped stays readable to it.

    Args:
        cache: the folder of the stores.
        needed: bytes of the new one.
        limit: bytes that all may take together.
    """
    stores = sorted(
        (path for path in cache.iterdir() if (path / "done.npy").is_file() and path.name[0] != "."),
        key=lambda path: path.stat().st_mtime,
    )
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in stores}
    for path in stores:
        if needed + sum(sizes.values()) <= limit and needed <= shutil.disk_usage(cache).free:
            return
        if _deleted(path):
            logger.warning("deleted %.1f GiB of tokens used longest ago, %s", sizes.pop(path) / GIB, path)


def _deleted(store: Path) -> bool:
    lock = _lock(store)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    shutil.rmtree(store, ignore_errors=True)
    lock.release()
    return True


def _lock(store: Path) -> FileLock:
    return FileLock(store.with_suffix(".lock"))
