"""The usable samples of a data set, and errors or warnings about the others."""

import logging
from dataclasses import replace

from hcl.data.checks import ALONE, OnError, Ranks, check_images, faulty_samples, listed
from hcl.data.images import shown
from hcl.data.samples import Dataset
from pipelines.decoding import undecodable

log = logging.getLogger(__name__)


def usable(dataset: Dataset, on_error: OnError, labels: bool = False, ranks: Ranks = ALONE) -> Dataset:
    """Return the data set without the samples that cannot be used.

    With "raise" a faulty sample is an error: `check_images` looks at the head and tail of every file. With
    "skip" every image is decoded and with `labels` every mask is read (a few milliseconds each), so that
    nothing can fail later. Faulty samples are left out; a warning gives their number and names the first ten,
    and `Dataset.skipped` of the result names them all. Which samples are left out depends on the files alone.
    The ranks of a machine divide the files among themselves and share their findings.

    Raises:
        FileNotFoundError: as `check_images`.
        ValueError: as `check_images`, or no sample is left.
    """
    if on_error == "raise":
        check_images(dataset, labels, ranks)
        return dataset
    faulty = _all_faults(dataset, labels, ranks)
    if len(faulty) == len(dataset):
        raise ValueError(
            f"none of the {len(dataset)} images of {dataset.name} can be used:\n{listed([*faulty.values()])}"
        )
    if faulty:
        log.warning(
            "%d of the %d images of %s are left out:\n%s",
            *(len(faulty), len(dataset), dataset.name, listed([*faulty.values()])),
        )
    samples = [sample for index, sample in enumerate(dataset.samples) if index not in faulty]
    return replace(dataset, samples=samples, skipped=(*dataset.skipped, *faulty.values()))


def _all_faults(dataset: Dataset, labels: bool, ranks: Ranks) -> dict[int, str]:
    faulty = faulty_samples(dataset, labels, ranks)
    sound = [(index, sample) for index, sample in enumerate(dataset.samples) if index not in faulty]
    mine = sound[ranks.of_machine(len(sound))]
    bad = undecodable(sample.image for _, sample in mine)
    own = {
        (index, f"{shown(sample.image)} cannot be decoded ({shown(sample.origin)})")
        for index, sample in mine
        if sample.image in bad
    }
    return dict(sorted([*faulty.items(), *ranks.union(own)]))
