"""Whether two ranks, or two parts of a run, see the same images."""

from pathlib import Path
from typing import Any

from hcl.data.samples import Dataset
from hcl.distributed import World

Identity = dict[str, Any]
"""``count`` of the images, and ``digest`` of their names."""


def identity_of(dataset: Dataset, world: World) -> Identity:
    """Return what identifies the images of a data set, which must be the same on all ranks.

    Raises:
        ValueError: a rank sees other images than the main rank.
    """
    identity = {"count": len(dataset), "digest": dataset.digest}
    main = world.broadcast_object(identity)
    if world.any(identity != main):
        raise ValueError(
            f"the ranks see different images of {dataset.name}: {main['count']} on the main rank, "
            f"{identity['count']} on rank {world.rank}; make all ranks read the same files"
        )
    return identity


def require_same(before: Identity, now: Identity, path: Path) -> None:
    """Refuse images other than those of the run that a checkpoint belongs to.

    Raises:
        ValueError: the images differ.
    """
    if before != now:
        raise ValueError(
            f"{path} belongs to a run on {before['count']} images, which are not the {now['count']} images "
            "of this run: restore the data set, or choose another --output"
        )
