"""Whether two ranks, or two parts of a run, see the same images."""

from pathlib import Path
from typing import Any

from hcl.data.samples import Dataset
from hcl.distributed import World

Identity = dict[str, Any]
"""``count`` of the images, and ``digest`` of their names."""


def identity_of(dataset: Dataset, world: World) -> Identity:
    """What tells the images of a data set from others, agreed upon by all ranks.

    Raises:
        ValueError: the main rank sees others.
    """
    identity = {"count": len(dataset), "digest": dataset.digest}
    main = world.broadcast_object(identity)
    if world.any(identity != main):
        raise ValueError(
            f"the ranks see different images of {dataset.name}: {main['count']} on the main one, "
            f"{identity['count']} on rank {world.rank}; all must be able to read the same files"
        )
    return identity


def require_same(before: Identity, now: Identity, path: Path) -> None:
    """Refuse other images than those that a checkpoint's run was on.

    Raises:
        ValueError: they differ.
    """
    if before != now:
        raise ValueError(
            f"{path} belongs to a run on {before['count']} images; now there are {now['count']}, "
            "or others in their place: restore the data set, or choose another --output"
        )
