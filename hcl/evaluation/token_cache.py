"""A folder of token stores that does not grow without end: those used longest ago make room for new ones."""

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
"""A folder with such a file is a store."""
DRAFT = ".draft"
"""How the name of a store ends that is not made yet."""
ABANDONED = re.compile(rf"[0-9a-f]{{32}}{re.escape(DRAFT)}")
"""Drafts of stores by their fingerprint; the folder may hold other things."""


@contextmanager
def alone_in(store: Path) -> Iterator[None]:
    """Keep other programs from filling a store; a lock whose holder died is free."""
    with _locked(store.with_suffix(".lock"), f"another program is at the tokens in {store}"):
        yield


@contextmanager
def in_use(store: Path) -> Iterator[None]:
    """Keep a store from being deleted, where there are locks; it counts as used now. Many may use one."""
    os.utime(store)
    with (store / DONE).open("rb") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def changing(cache: Path) -> Iterator[None]:
    """Keep other programs from making and deleting stores of a folder."""
    with _locked(cache / "room.lock", f"another program makes room in {cache}"):
        yield


@contextmanager
def _locked(path: Path, occupied: str) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("%s: waiting for it", occupied)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def new_store(store: Path, needed: int, limit: float) -> Iterator[Path]:
    """A folder to make a store in, which takes its place when the block ends and is gone when it fails.

    Stores used longest ago are deleted for it, but for those in use; none is where that would not help.

    Args:
        store: not there yet; this program is `changing` its folder.
        needed: bytes that it will take.
        limit: bytes that all stores of its folder may take together. Those in use may make it more.

    Raises:
        OSError: it would take more than ``limit`` by itself, or more than the disk has.
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
            logger.warning("deleted %.1f GiB of tokens used longest ago, %s", sizes[path] / GIB, path)
    if total + needed > limit:
        logger.warning(
            "tokens in %s will take %.1f GiB, more than --token_cache_gib: the others are in use",
            cache,
            (total + needed) / GIB,
        )


def _refuse_what_cannot_fit(cache: Path, needed: int, limit: float, free: int) -> None:
    if needed > limit:
        reason = f"more than the {limit / GIB:.1f} GiB of --token_cache_gib: raise it, or --keep_tokens false"
    elif needed > free:
        reason = f"but {cache} has {free / GIB:.1f} GiB: choose another folder by --token_cache"
    else:
        return
    raise OSError(errno.ENOSPC, f"tokens need {needed / GIB:.1f} GiB, {reason}")


def _size(store: Path) -> int:
    return sum(file.stat().st_size for file in store.iterdir())


@contextmanager
def _idle(store: Path) -> Iterator[bool]:
    """Whether nobody uses a store; then nobody does before the block ends."""
    # To be written, which NFS asks of who wants a file alone.
    with (store / DONE).open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
