"""Check that every image exists and is complete, so that no run fails on one bad file hours later."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from hcl.data.images import BadImageError, file_problem, opened, shown
from hcl.data.samples import Dataset, Sample, read_label

TAIL = 256  # bytes at the end of a file in which a complete image has its end marker
END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
SHOWN = 10

OnError = Literal["raise", "skip"]
"""What to do about files that cannot be used: stop before anything runs, or leave them out."""
Problem = Callable[[Path], str | None]
T = TypeVar("T")


class Ranks(Protocol):
    """Ranks that check files together, such as `hcl.distributed.World`; every machine checks all files."""

    def of_machine(self, length: int) -> slice:
        """This rank's share of what its machine checks."""

    def union(self, found: set[T]) -> set[T]:
        """The union of what the ranks have found, on every rank."""


class _Alone:
    def of_machine(self, length: int) -> slice:
        return slice(length)

    def union(self, found: set[T]) -> set[T]:
        return found


ALONE: Ranks = _Alone()


def check_images(dataset: Dataset, labels: bool = False, ranks: Ranks = ALONE) -> None:
    """Check the head and tail of every image, and with `labels` of every mask; decode only in case of doubt.

    It takes tenths of a millisecond per file. An error names the files at fault (the first ten, and the
    number of the others) with the lines of the split; it is the same on all ranks.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: there is no sample at all, an image is listed twice, or a file is empty, cut short or not
            an image.
    """
    if not len(dataset):
        raise ValueError(f"the data set {dataset.name} is empty")
    _raise_first(_problems(dataset, labels, file_problem, ranks), FileNotFoundError)
    faults = [*repetitions(dataset).values(), *_problems(dataset, labels, image_problem, ranks)]
    _raise_first(faults, ValueError)


def faulty_samples(dataset: Dataset, labels: bool = False, ranks: Ranks = ALONE) -> dict[int, str]:
    """What is wrong with each faulty sample, by index: as `check_images`; with `labels`, masks are read too.

    An image that is listed twice is at fault the second time.
    """
    mine = range(len(dataset))[ranks.of_machine(len(dataset))]
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda index: _sample_problem(dataset.samples[index], dataset, labels), mine)
        own = {(index, problem) for index, problem in zip(mine, found, strict=True) if problem}
    return dict(sorted(ranks.union(own))) | repetitions(dataset)


def image_problem(path: Path) -> str | None:
    """What is wrong with an image file, or None."""
    try:
        with opened(path) as image:
            marker = END_MARKERS.get(image.format or "")
            if marker is None or marker not in _tail(path):
                image.load()
    except BadImageError as error:
        return str(error)
    return None


def repetitions(dataset: Dataset) -> dict[int, str]:
    """The samples whose image an earlier sample has too, by index, each with a message."""
    first: dict[Path, Sample] = {}
    again = {}
    for index, sample in enumerate(dataset.samples):
        before = first.setdefault(sample.image, sample)
        if before is not sample:
            again[index] = f"{_named(sample)} is listed twice, first in {shown(before.origin)}"
    return again


def listed(problems: list[str]) -> str:
    """The first ten problems, one per line, and how many more there are."""
    more = f"\n... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "\n".join(problems[:SHOWN]) + more


def _named(sample: Sample) -> str:
    return f"{shown(sample.image)} ({shown(sample.origin)})"


def _sample_problem(sample: Sample, dataset: Dataset, labels: bool) -> str | None:
    if problem := image_problem(sample.image):
        return f"{shown(sample.image)} {problem} ({shown(sample.origin)})"
    try:
        if labels:
            read_label(sample, dataset)
    except ValueError as error:
        return str(error)
    return None


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), TAIL, max(0, size - TAIL))


def _problems(dataset: Dataset, labels: bool, problem: Problem, ranks: Ranks) -> list[str]:
    found = ranks.union(set(_own_problems(dataset, labels, problem, ranks.of_machine(len(dataset)))))
    return [text for _, text in sorted(found)]


def _own_problems(
    dataset: Dataset, labels: bool, problem: Problem, mine: slice
) -> Iterator[tuple[tuple[int, int], str]]:
    """Each problem with its place: the sample's index, and 0 for its image, 1 for its mask."""
    for index in range(len(dataset))[mine]:
        sample = dataset.samples[index]
        for place, path in enumerate((sample.image, sample.label if labels else None)):
            if path is not None and (found := problem(path)):
                yield (index, place), f"{shown(path)} {found} ({shown(sample.origin)})"


def _raise_first(problems: list[str], error: type[Exception]) -> None:
    if problems:
        raise error(listed(problems))
