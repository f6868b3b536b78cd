"""Checks of a run that come before the check of its images, which takes minutes if there are many."""

from hcl.distributed import World
from hcl.engine.batches import require_division
from hcl.engine.boards import require_board
from hcl.engine.config import TrainConfig
from hcl.engine.saved_run import SavedRun
from pipelines import dali


def refuse_early(config: TrainConfig, world: World, saved: SavedRun, *, resume: bool) -> None:
    """Refuse a run that cannot begin.

    Raises:
        FileExistsError: the output folder holds a run and ``resume`` is False.
        ModuleNotFoundError: DALI, or the logger's package, is not installed.
        ValueError: the batch does not divide among ranks and micro-batches.
    """
    if not resume and saved.exists():
        raise FileExistsError(
            f"{config.output} already holds a run: continue it with --resume, or choose another --output"
        )
    require_division(config.batch_size, config.accumulation, world)
    require_board(config.logger)
    dali.require()
