"""Is every image there and whole? Asked first, so that no run dies of one bad file hours later."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from hcl.data.samples import Dataset

TAIL = 256  # bytes at the end of a file among which a whole image has its end marker
END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
SHOWN = 10


def check_images(dataset: Dataset, labels: bool = False) -> None:
    """Look at the head and tail of every image, and with `labels` of every mask; decode only where in doubt.

    Raises one error that names the files at fault (the first ten and how many there are) with the lines of
    the split: FileNotFoundError where a file is missing, else ValueError (no sample at all, an empty file, a
    truncated image, not an image). About 0.1 ms a file.
    """
    if not len(dataset):
        raise ValueError(f"the data set {dataset.name} is empty")
    _raise_first(_problems(dataset, labels, _missing), FileNotFoundError)
    _raise_first(_problems(dataset, labels, image_problem), ValueError)


def image_problem(path: Path) -> str | None:
    """What is wrong with an image file, or None."""
    if missing := _missing(path):
        return missing
    try:
        with path.open("rb") as file, Image.open(file) as image:
            marker = END_MARKERS.get(image.format or "")
            if marker is None or marker not in _tail(file.fileno()):
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return "is empty (0 bytes)" if path.stat().st_size == 0 else f"is no whole image ({error})"
    return None


def _missing(path: Path) -> str | None:
    return None if path.is_file() else "does not exist"


def _tail(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, TAIL, max(0, size - TAIL))


def _problems(dataset: Dataset, labels: bool, problem: Callable[[Path], str | None]) -> Iterable[str]:
    for sample in dataset.samples:
        for path in (sample.image, sample.label if labels else None):
            if path is not None and (found := problem(path)):
                yield f"{path} {found} ({sample.origin})"


def _raise_first(problems: Iterable[str], error: type[Exception]) -> None:
    found = list(problems)
    if found:
        more = f"\n... and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise error("\n".join(found[:SHOWN]) + more)
