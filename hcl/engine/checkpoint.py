"""Checkpoints: written completely or not at all, verified before use, read without executing anything.

``checkpoint.pt`` is the newest, ``checkpoint.1.pt`` the one before it, and so on; ``best.pt`` is the best.
torch writes a file as a zip archive with a CRC-32 of every record; reading a checkpoint verifies them.
"""

import shutil
from collections.abc import Callable, Iterable
from itertools import count, pairwise
from pathlib import Path
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar

import torch

from hcl.files import sync_folder, written_aside
from hcl.models.weights import CheckpointError, read_checkpoint

FORMAT = 2
T = TypeVar("T")


class Found(NamedTuple, Generic[T]):
    """The content of the newest usable checkpoint, its file, and why each newer one was refused."""

    content: T
    path: Path
    refused: list[str]


class Checkpoints:
    """The checkpoints of the run in one folder; only one process at a time may write them.

    Args:
        folder: the run's folder.
        kept: how many of the latest checkpoints to keep, at least 1; the best one is kept in addition.
    """

    def __init__(self, folder: Path, kept: int = 1) -> None:
        self.folder, self.kept = folder, kept

    @property
    def newest(self) -> Path:
        """Path of the newest checkpoint."""
        return self._aged(0)

    @property
    def best(self) -> Path:
        """Path of the best checkpoint."""
        return self.folder / "best.pt"

    def _aged(self, age: int) -> Path:
        return self.folder / (f"checkpoint.{age}.pt" if age else "checkpoint.pt")

    def existing(self) -> list[Path]:
        """The existing checkpoints, newest first, without the best one."""
        ages = [
            int(name) for path in self.folder.glob("checkpoint.*.pt") if (name := path.stem[11:]).isdecimal()
        ]
        return [path for age in [0, *sorted(ages)] if (path := self._aged(age)).exists()]

    def save(self, state: dict[str, Any], *, best: bool = False) -> None:
        """Write ``state`` as the newest checkpoint and, with ``best``, as the best one too.

        Every file is complete on disk before it gets its name, and no other file loses its name before that.

        Raises:
            OSError: a file could not be written, as on a full disk; all earlier checkpoints are kept.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self._fresh(state)
        if best:
            self._also(fresh, self.best)
        names = [fresh, *(self._aged(age) for age in range(self.kept))]
        for newer, older in reversed(list(pairwise(names))):
            if newer.exists():
                newer.replace(older)
        sync_folder(self.folder)
        for surplus in set(self.existing()) - set(names):
            surplus.unlink()

    def set_aside(self, path: Path) -> None:
        """Rename an unusable checkpoint, so that it does not displace a usable one."""
        names = (path.with_name(f"{path.name}.refused{number or ''}") for number in count())
        path.replace(next(name for name in names if not name.exists()))

    def _also(self, path: Path, name: Path) -> None:
        """Give a file a second name: a hard link, or a copy if the file system has no hard links."""
        second = self.folder / ".best.fresh"
        second.unlink(missing_ok=True)
        try:
            second.hardlink_to(path)
        except OSError:
            with path.open("rb") as file, written_aside(second) as copy:
                shutil.copyfileobj(file, copy)
        second.replace(name)

    def _fresh(self, state: dict[str, Any]) -> Path:
        """Write a complete file under a temporary name, a fixed one so that killed writes do not pile up."""
        path = self.folder / ".checkpoint.fresh"
        with written_aside(path) as file:
            write_state(state, file)
        return path


def newest_usable(paths: Iterable[Path], read: Callable[[Path], T]) -> Found[T]:
    """Read the first usable checkpoint.

    Args:
        paths: checkpoints, newest first, as `Checkpoints.existing` returns them.
        read: returns a file's content or raises a CheckpointError, as `load_checkpoint` does.

    Raises:
        CheckpointError: none can be used; the message says why for each.
    """
    refused: list[str] = []
    for path in paths:
        try:
            return Found(read(path), path, refused)
        except CheckpointError as error:
            refused.append(str(error))
    raise CheckpointError(f"no checkpoint can be used: {'; '.join(refused) or 'there are none'}")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one training checkpoint of this program, or another file that `write_state` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, would execute code, or was not written by this version of the
            program.
    """
    state = read_checkpoint(path)
    if (version := state.get("format")) != FORMAT:
        known = f"was written by another version of this program (format {version}, not {FORMAT})"
        raise CheckpointError(
            f"{path} {known if isinstance(version, int) else 'is not a training checkpoint of this program'}"
        )
    return state


def write_state(state: dict[str, Any], file: BinaryIO) -> None:
    """Write a state that `load_checkpoint` reads.

    Raises:
        OSError: it could not be written.
    """
    try:
        torch.save({"format": FORMAT, **state}, file)
    except RuntimeError as error:
        # After a full disk or Ctrl-C, torch's own error only says that it cannot close the archive.
        raise error.__context__ or error from None
