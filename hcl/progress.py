"""Progress bars: one, whatever the number of ranks, and none in a pipe."""

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
    """A bar over ``steps``, or one of ``total`` that is moved by hand; only the main rank shows it.

    Args:
        world: the ranks.
        title: what is being done.
        unit: of what, in the singular.
        steps: to iterate.
        total: number of units, where it cannot be asked of ``steps``.
        done: of these units, before the bar begins.
        within: whether this is part of what another bar counts; then it goes when it is done.
    """
    silent = None if world.is_main else True
    return tqdm(steps, title, total, initial=done, unit=unit, leave=not within, disable=silent)
