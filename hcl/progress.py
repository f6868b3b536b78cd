"""Progress bars: one for all ranks, and none if the output is not a terminal."""

from collections.abc import Iterable

from tqdm import tqdm

from hcl.distributed import World


def progress(
    world: World,
    title: str,
    unit: str,
    *,
    steps: Iterable | None = None,
    total: int | None = None,
    done: int = 0,
    within: bool = False,
) -> tqdm:
    """Return a bar over ``steps``, or over ``total`` units that the caller advances; the main rank shows it.

    Args:
        world: the ranks.
        title: what is being done.
        unit: name of a unit, in the singular.
        steps: what to iterate over.
        total: number of units, if it cannot be taken from ``steps``.
        done: units that are done before the bar begins.
        within: whether the work is part of what another bar counts; the bar then disappears at its end.
    """
    silent = None if world.is_main else True
    return tqdm(steps, title, total, initial=done, unit=unit, leave=not within, disable=silent)
