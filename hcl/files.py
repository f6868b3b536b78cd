"""Files that are there whole or not at all."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write into under a temporary name, which takes the place of ``path`` once it is written.

    Raises:
        OSError: it could not be written; what stood at ``path`` stands there still.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process's number, which others have in containers of their own.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with written_aside(temporary) as file:
        yield file
    temporary.replace(path)
    sync_folder(path.parent)


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, on disk when the block ends and gone when it fails; then it may be renamed.

    Raises:
        OSError: it could not be written; the error names it.
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
    """Name ``path`` in an error of the block that names no file, as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def probe(folder: Path) -> None:
    """Write to a folder, and leave nothing there.

    Raises:
        OSError: it cannot be written to.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")


def unwritable(folder: Path, error: OSError) -> OSError:
    """What to say of an output folder that cannot be written to."""
    return OSError(
        f"the output folder {folder} cannot be written to ({error.strerror}): choose another --output"
    )


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk, so that a rename outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
