"""What a run may keep in its device's memory."""

from typing import Literal, NamedTuple

from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.memory import GIB, free_memory
from pipelines.kept_images import decoded_bytes

SHARE_FOR_IMAGES = 0.25
"""Share of the free memory for images; half of the rest may hold levels (`hcl.engine.bank_pass`)."""


class Keeping(NamedTuple):
    """Whether decoded images are kept, why or why not, and how many bytes they take if they are."""

    keeps: bool
    reason: str
    taken: int


def keeping(wanted: Literal["auto", "always", "never"], dataset: Dataset, world: World) -> Keeping:
    """Decide whether a run keeps its decoded images; "auto" does if every rank has room for all of them."""
    if wanted == "never":
        return Keeping(False, "keep_images is never", 0)
    needed, free = decoded_bytes(dataset), free_memory(world.device)
    if wanted == "always":
        return Keeping(True, f"keep_images is always; they take {needed / GIB:.2f} GiB", needed)
    fits = not world.any(needed > SHARE_FOR_IMAGES * free)
    reason = f"all of them take {needed / GIB:.2f} GiB, and {free / GIB:.2f} GiB are free"
    return Keeping(fits, reason, needed if fits else 0)
