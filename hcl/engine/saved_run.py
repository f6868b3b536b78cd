"""A saved run: its checkpoints and the token banks beside them, for all ranks together."""

from pathlib import Path
from typing import Any, NamedTuple

from hcl.clustering.mogo import Banks
from hcl.distributed import World
from hcl.engine.bank_files import BankFiles
from hcl.engine.checkpoint import Checkpoints, Found, load_checkpoint, newest_usable
from hcl.models.weights import CheckpointError


class Saved(NamedTuple):
    """The state of a run, and this rank's shares of its banks."""

    state: dict[str, Any]
    banks: Banks | None


class SavedRun:
    """Saves a run and reads it again. Every rank makes the same calls; the main one writes the checkpoints.

    Args:
        folder: the run's folder, which all ranks must see.
        kept: how many of the latest checkpoints to keep.
        world: the ranks of the run.
    """

    def __init__(self, folder: Path, kept: int, world: World) -> None:
        self.checkpoints = Checkpoints(folder, kept)
        self.bank_files = BankFiles(folder, kept, world)
        self.world = world
        self._unusable: list[Path] = []

    def save(self, state: dict[str, Any], *, best: bool = False) -> None:
        """Save the main rank's state with the banks that were last given to `BankFiles.write`.

        Checkpoints that `load` has passed over are set aside first, so that they do not displace usable ones.

        Raises:
            OSError: a file could not be written; all earlier checkpoints are kept.
        """
        record = self.bank_files.finish()
        if self.world.is_main:
            while self._unusable:
                self.checkpoints.set_aside(self._unusable.pop())
            self.checkpoints.save({**state, "banks": record}, best=best)
            self.bank_files.remove_unneeded()
        self.world.barrier()

    def close(self) -> None:
        """Wait for pending writes; to be called at every end of a run."""
        self.bank_files.close()

    def exists(self) -> bool:
        """Whether the main rank sees a checkpoint."""
        return self.world.broadcast_object(bool(self.checkpoints.existing()))

    def load(self) -> Found[Saved]:
        """Read the newest state that every rank can continue from, among those that the main rank sees.

        Raises:
            CheckpointError: there is none; the message says why for each checkpoint.
        """
        existing = self.world.broadcast_object(self.checkpoints.existing())
        found = newest_usable(existing, self._agreed)
        self._unusable = existing[: len(found.refused)]
        return found

    def _agreed(self, path: Path) -> Saved:
        """Read a checkpoint; wait until all ranks have, since a rank that continues may write a newer one."""
        saved: Saved | None = None
        problem = f"another rank cannot use {path}"
        try:
            saved = self._read(path)
        except (CheckpointError, FileNotFoundError) as error:
            problem = str(error)
        if self.world.any(saved is None):
            raise CheckpointError(problem)
        assert saved is not None
        return saved

    def _read(self, path: Path) -> Saved:
        state = load_checkpoint(path)
        try:
            return Saved(state, self.bank_files.read(state["banks"]))
        except CheckpointError as error:
            raise CheckpointError(f"{path} needs token banks that cannot be used: {error}") from error
