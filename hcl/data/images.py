"""Opening image files that nobody has checked: every fault becomes an error that says what is wrong."""

import errno
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

MAX_PIXELS = 178_956_970  # half a gigabyte as RGB; Pillow refuses more as a decompression bomb
MAX_RATIO = 200  # longer to shorter side: resizing a thin strip by its shorter side takes unlimited memory

_JPEG = frozenset(("L", "RGB", "CMYK", "CMYK;I"))
STORED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "JPEG": _JPEG,
        "MPO": _JPEG,
        "PNG": frozenset(
            (
                *("1", "L;2", "L;4", "L", "I;16B", "LA", "LA;16B", "P;1", "P;2", "P;4", "P"),
                *("RGB", "RGB;16B", "RGBA", "RGBA;16B"),
            )
        ),
        "WEBP": frozenset(("RGB", "RGBA", "RGBX")),
        "BMP": frozenset(("1", "L", "P", "P;1", "P;4", "BGR", "BGRX", "BGRA")),
        "PPM": frozenset(("1;I", "L", "RGB")),
        "TIFF": frozenset(("L", "P", "RGB", "RGBA", "CMYK")),
    }
)
"""Formats and, in Pillow's terms, those ways to store pixels that DALI decodes to the same colours."""

_FORMATS = tuple(name for name in STORED if name != "MPO")  # which Pillow opens as JPEG
_ODD_CODECS = ("ppm", "ppm_plain", "bmp_rle")
_ORIENTATION = 274  # TIFF tag
_OF_THE_MACHINE = frozenset((errno.EAGAIN, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE))
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class BadImageError(ValueError):
    """An image file that cannot be used; the message says why, without the file's name."""


class DecodeError(RuntimeError):
    """An image could not be decoded; the message names it."""


def shown(path: object) -> str:
    """Format a path for a message: on one line, and printable whatever its bytes."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def file_problem(path: Path) -> str | None:
    """Why a path is not a regular file, or None. Nothing is opened: opening a pipe would wait for its writer.

    Raises:
        OSError: the machine is at fault, for example with too many open files.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a broken link" if path.is_symlink() else "does not exist"
    except (OSError, ValueError) as error:  # a loop of links, too long a name, a folder without permission
        _raise_what_is_of_the_machine(error)
        return f"cannot be accessed ({getattr(error, 'strerror', None) or error})"
    return None if stat.S_ISREG(mode) else f"is {_KINDS.get(stat.S_IFMT(mode), 'not a regular file')}"


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image after checking from its header that it can be used.

    Raises:
        BadImageError: the image cannot be used; also for errors while the block reads it.
        OSError: the machine is at fault; the same file may be readable another time.
    """
    if problem := file_problem(path):
        raise BadImageError(problem)
    try:
        file = path.open("rb")
    except OSError as error:
        _raise_what_is_of_the_machine(error)
        raise BadImageError(_reason(error)) from error
    with file, opened_stream(file) as image:
        yield image


@contextmanager
def opened_stream(file: BinaryIO) -> Iterator[ImageFile.ImageFile]:
    """Do as `opened` for a file that is already open, such as one in memory."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if problem := _header_problem(image):
                raise BadImageError(problem)
            yield image
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError(f"claims to have more than {MAX_PIXELS} pixels") from error
    except Exception as error:  # Pillow's parsers raise all kinds of errors at unexpected bytes
        _raise_what_is_of_the_machine(error)
        raise BadImageError("is empty (0 bytes)" if not file.seek(0, 2) else _reason(error)) from error


def stored_as(image: ImageFile.ImageFile) -> str:
    """How an image's pixels are stored, in Pillow's terms ("L;4" is 4-bit grey); call it before loading."""
    if not image.tile:
        return image.mode
    codec, _, _, arguments = image.tile[0]
    raw = arguments[0] if isinstance(arguments, tuple) else arguments
    return codec if codec in _ODD_CODECS else str(raw)


def _header_problem(image: ImageFile.ImageFile) -> str | None:
    width, height = image.size
    stored = stored_as(image)
    if stored not in STORED[image.format or ""]:
        return f"is a {image.format} stored as {stored}, which is not supported: convert it to 8-bit RGB"
    if image.format == "TIFF" and image.getexif().get(_ORIENTATION, 1) != 1:
        return "is a TIFF with an orientation tag, which is not supported: save it upright"
    if width * height > MAX_PIXELS:
        return f"has {width}x{height} pixels, more than {MAX_PIXELS}"
    if max(width, height) > MAX_RATIO * min(width, height):
        return f"has {width}x{height} pixels: one side is more than {MAX_RATIO} times as long as the other"
    return None


def _raise_what_is_of_the_machine(error: Exception) -> None:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _OF_THE_MACHINE):
        raise error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"is not a complete image (truncated, or in none of the formats {', '.join(_FORMATS)})"
    return f"is not a complete image ({error or type(error).__name__})"
