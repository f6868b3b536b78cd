"""One run per folder."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hcl.files import probe, unwritable

LOCK = ".lock"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Create a run's folder and lock out other runs until the block or the process ends, however it ends.

    Raises:
        FileExistsError: another run holds the lock; the message names its process.
        OSError: the folder cannot be created or written to.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
        probe(folder)
        (folder / LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except Timeout:
        holder = (folder / LOCK).read_text(encoding="utf-8")
        raise FileExistsError(
            f"another run is writing to {folder} ({holder}): wait until it ends, or choose another --output"
        ) from None
    except OSError as error:
        lock.release()
        raise unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()
