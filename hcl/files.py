"""Writing files so that they exist complete or not at all."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file for writing, which replaces ``path`` once it is complete.

    Raises:
        OSError: the file could not be written; what was at ``path`` before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process id: a process in another container may have the same one.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with written_aside(temporary) as file:
        yield file
    temporary.replace(path)
    sync_folder(path.parent)


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is to be renamed later: synced to disk when the block ends, deleted if it fails.

    Raises:
        OSError: the file could not be written; the error names it.
    """
    try:
        with naming(path), path.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add ``path`` to an OSError of the block that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def probe(folder: Path) -> None:
    """Check that a folder can be written to; nothing is left there.

    Raises:
        OSError: it cannot be written to.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")


def unwritable(folder: Path, error: OSError) -> OSError:
    """Return the error for an output folder that cannot be written to."""
    return OSError(
        f"the output folder {folder} cannot be written to ({error.strerror}): choose another --output"
    )


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
