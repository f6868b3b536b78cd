"""The token banks of a run, in files beside its checkpoints: most of the data that a run needs to resume.

Banks change at most once per epoch, so each is written once, in the background, while the epoch trains. Every
rank writes its own share, and any number of ranks can read them; a checkpoint records which files it needs.
"""

from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hcl.clustering.bank import Bank
from hcl.clustering.mogo import SIDES, Banks
from hcl.distributed import World, share
from hcl.engine.checkpoint import load_checkpoint, write_state
from hcl.files import sync_folder, written_aside
from hcl.models.weights import CheckpointError

BankRecord = dict[str, Any]
"""Which banks a checkpoint needs: the ``epoch`` that they were made for, the number of ``ranks`` that wrote
them, and for each side the shape (n, C) of the whole bank."""


class BankFiles:
    """Writes and reads the banks of one run, in a folder that all ranks must see.

    Args:
        folder: the run's folder.
        kept: how many checkpoints are kept; each may need banks of its own.
        world: the ranks among which the banks are divided.
    """

    def __init__(self, folder: Path, kept: int, world: World) -> None:
        self.folder = folder / "banks"
        self.kept = kept
        self.world = world
        self._record: BankRecord | None = None
        self._writing: Future[None] | None = None

    def write(self, epoch: int, banks: Banks) -> None:
        """Start writing the banks made before ``epoch``; they must not change until `finish` has returned."""
        shapes = {side: [bank.total, bank.rows.shape[1]] for side, bank in zip(SIDES, banks, strict=True)}
        self._record = {"epoch": epoch, "ranks": self.world.size, **shapes}
        path, stream = self._path(self._record, self.world.rank), _side_stream(self.world.device)
        writer = ThreadPoolExecutor(max_workers=1)
        self._writing = writer.submit(self._write, path, banks, stream)
        writer.shutdown(wait=False)

    def _write(self, path: Path, banks: Banks, stream: torch.cuda.Stream | None) -> None:
        if stream is not None:
            # A new thread's own device is GPU 0, where leaving the stream would create a context.
            torch.cuda.set_device(stream.device)
        with torch.cuda.stream(stream):
            rows = {side: bank.rows.cpu() for side, bank in zip(SIDES, banks, strict=True)}
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.folder / f".{self.world.rank}.fresh"  # a fixed name: killed writes do not pile up
        with written_aside(fresh) as file:
            write_state(rows, file)
        fresh.replace(path)
        sync_folder(self.folder)

    def finish(self) -> BankRecord | None:
        """Wait until every rank's share is on disk; return the checkpoint's record, None without banks.

        Raises:
            OSError: this rank's share could not be written.
        """
        if self._writing:
            self._writing.result()
            self._writing = None
        self.world.barrier()
        return self._record

    def close(self) -> None:
        """Wait for a write that is still in progress, so that it cannot disturb a later run in the folder."""
        if self._writing:
            wait([self._writing])

    def read(self, record: BankRecord | None) -> Banks | None:
        """Read this rank's share of the banks that a checkpoint needs, onto its device.

        Raises:
            CheckpointError: a file is missing or damaged, or holds something else.
        """
        self._record = record
        if record is None:
            return None
        parts: dict[str, list[Tensor]] = {side: [] for side in SIDES}
        for writer in range(record["ranks"]):
            wanted = {side: self._overlap(record, side, writer) for side in SIDES}
            if any(overlap.start < overlap.stop for overlap in wanted.values()):
                rows = self._rows(record, writer)
                for side in SIDES:
                    parts[side].append(rows[side][wanted[side]])
        foreground, background = (
            Bank(self._joined(parts[side], record[side]), record[side][0]) for side in SIDES
        )
        return foreground, background

    def _overlap(self, record: BankRecord, side: str, writer: int) -> slice:
        """The slice of a writer's rows that belongs to this rank now."""
        total = record[side][0]
        theirs, mine = share(total, writer, record["ranks"]), self.world.slice(total)
        start = min(max(mine.start, theirs.start), theirs.stop) - theirs.start
        return slice(start, max(min(mine.stop, theirs.stop) - theirs.start, start))

    def _rows(self, record: BankRecord, writer: int) -> dict[str, Tensor]:
        path = self._path(record, writer)
        try:
            content = load_checkpoint(path)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{path} is missing: to resume, a run needs its checkpoint and the folder {self.folder}"
            ) from error
        for side in SIDES:
            total, channels = record[side]
            held = share(total, writer, record["ranks"])
            expected = (held.stop - held.start, channels)
            if not isinstance(rows := content.get(side), Tensor) or tuple(rows.shape) != expected:
                raise CheckpointError(f"{path} does not hold the token banks that its checkpoint needs")
        return content

    def _joined(self, parts: list[Tensor], shape: list[int]) -> Tensor:
        return torch.cat([torch.empty(0, shape[1]), *parts]).to(self.world.device)

    def _path(self, record: BankRecord, writer: int) -> Path:
        return self.folder / f"{record['epoch']}.{writer}of{record['ranks']}.pt"

    def remove_unneeded(self) -> None:
        """Delete files that no kept checkpoint needs; one rank calls this while no rank writes.

        Every epoch ends with a checkpoint, so the kept checkpoints need the banks of at most as many epochs.
        """
        if self._record is None:
            return
        oldest = self._record["epoch"] - self.kept + 1
        for path in self.folder.glob("*.pt"):
            with suppress(ValueError):  # not a file of ours
                if int(path.name.partition(".")[0]) < oldest:
                    path.unlink()
        for path in self.folder.glob(".*.fresh"):
            path.unlink()


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A GPU stream that runs after all work queued so far and does not wait for work queued later."""
    if device.type != "cuda":
        return None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream
