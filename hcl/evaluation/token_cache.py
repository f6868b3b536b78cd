"""A cache folder of token stores with a size limit: the least recently used make room for new ones."""

import errno
import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from hcl.memory import GIB

logger = logging.getLogger(__name__)

DONE = "done.npy"
"""A folder with this file is a store."""
DRAFT = ".draft"
"""Suffix of the name of a store that is not complete yet."""
ABANDONED = re.compile(rf"[0-9a-f]{{32}}{re.escape(DRAFT)}")
"""Names of drafts, which start with a fingerprint; the folder may hold other things."""


@contextmanager
def alone_in(store: Path) -> Iterator[None]:
    """Keep other programs from filling a store; the lock is released if its holder dies."""
    with _locked(store.with_suffix(".lock"), f"another program is computing the tokens in {store}"):
        yield


@contextmanager
def in_use(store: Path) -> Iterator[None]:
    """Mark a store as used now and, if the file system has locks, keep it from being deleted.

    Several programs may use a store at the same time.
    """
    os.utime(store)
    with (store / DONE).open("rb") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def changing(cache: Path) -> Iterator[None]:
    """Keep other programs from creating and deleting stores in a folder."""
    with _locked(cache / "room.lock", f"another program is making room in {cache}"):
        yield


@contextmanager
def _locked(path: Path, occupied: str) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("%s; waiting for it", occupied)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def new_store(store: Path, needed: int, limit: float) -> Iterator[Path]:
    """Yield a folder to create a store in; renamed to ``store`` when the block ends, or deleted if it fails.

    The least recently used stores that are not in use are deleted to make room; none is deleted if the new
    store cannot fit anyway.

    Args:
        store: path of the store, which must not exist; this program holds the lock `changing` of its folder.
        needed: size of the store in bytes.
        limit: maximum total size in bytes of all stores in the folder. Stores in use may make it larger.

    Raises:
        OSError: the store alone would take more than ``limit``, or more than the disk has.
    """
    for abandoned in store.parent.glob(f"*{DRAFT}"):
        if ABANDONED.fullmatch(abandoned.name) and abandoned.is_dir():
            shutil.rmtree(abandoned)
    _make_room(store.parent, needed, limit)
    draft = store.with_suffix(DRAFT)
    draft.mkdir()
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    draft.rename(store)


def _make_room(cache: Path, needed: int, limit: float) -> None:
    sizes = {path: _size(path) for path in cache.iterdir() if (path / DONE).is_file()}
    total, free = sum(sizes.values()), shutil.disk_usage(cache).free
    with ExitStack() as held:
        chosen = []
        for path in sorted(sizes, key=lambda path: path.stat().st_mtime):
            if total + needed <= limit and needed <= free:
                break
            if held.enter_context(_idle(path)):
                chosen.append(path)
                total -= sizes[path]
                free += sizes[path]
        _refuse_what_cannot_fit(cache, needed, limit, free)
        for path in chosen:
            shutil.rmtree(path)
            logger.warning("deleted %.1f GiB of the least recently used tokens, %s", sizes[path] / GIB, path)
    if total + needed > limit:
        logger.warning(
            "tokens in %s will take %.1f GiB, more than --token_cache_gib, because the others are in use",
            cache,
            (total + needed) / GIB,
        )


def _refuse_what_cannot_fit(cache: Path, needed: int, limit: float, free: int) -> None:
    if needed > limit:
        reason = (
            f"more than the {limit / GIB:.1f} GiB of --token_cache_gib: raise it, or use --keep_tokens false"
        )
    elif needed > free:
        reason = f"but {cache} has only {free / GIB:.1f} GiB free: choose another folder with --token_cache"
    else:
        return
    raise OSError(errno.ENOSPC, f"tokens need {needed / GIB:.1f} GiB, {reason}")


def _size(store: Path) -> int:
    return sum(file.stat().st_size for file in store.iterdir())


@contextmanager
def _idle(store: Path) -> Iterator[bool]:
    """Yield whether a store is not in use; if so, it is locked until the block ends."""
    # Opened for writing, which NFS requires for an exclusive lock.
    with (store / DONE).open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
