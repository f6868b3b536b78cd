"""Boards on which the curves of a run can be watched."""

import os
import secrets
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from torch.utils.tensorboard import SummaryWriter

Logger = Literal["tensorboard", "wandb"]


class Board(Protocol):
    """Shows numbers by optimiser step."""

    def show(self, figures: dict[str, float], step: int) -> None:
        """Add a point to the curve of each name."""

    def close(self) -> None:
        """Hand over what is still held back."""


def require_board(logger: Logger) -> Any:
    """The package of a board that is no dependency, None for one that is.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if logger == "tensorboard":
        return None
    try:
        return import_module(logger)
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"logger {logger} needs the package {logger}, which is not installed: "
            f"pip install '.[{logger}]' in the project's folder, or leave out --logger"
        ) from missing


def open_board(logger: Logger, folder: Path, step: int, settings: dict[str, Any]) -> Board:
    """The board of the run in a folder.

    Args:
        logger: which.
        folder: of the run, where the board keeps its files.
        step: the step that the run continues from.
        settings: of the run, nested.

    Raises:
        ModuleNotFoundError: its package is not installed.
    """
    return TensorBoard(folder, step) if logger == "tensorboard" else WeightsAndBiases(folder, settings)


class TensorBoard:
    """Event files in the run's folder; what a resumed run writes again takes the place of what was there."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def show(self, figures: dict[str, float], step: int) -> None:
        """Add a point to the curve of each name."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is still held back."""
        self._writer.close()


class WeightsAndBiases:
    """One run of Weights & Biases a folder; resuming goes on in it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._run = require_board("wandb").init(
            project=os.environ.get("WANDB_PROJECT", "hcl"),
            name=folder.name,
            id=_identifier(folder / "wandb_id"),
            resume="allow",
            dir=str(folder),
            config=settings,
        )
        # Its own count of steps only ascends, but a resumed run goes back to its checkpoint.
        self._run.define_metric("optimiser_step")
        self._run.define_metric("*", step_metric="optimiser_step")

    def show(self, figures: dict[str, float], step: int) -> None:
        """Add a point to the curve of each name."""
        self._run.log({**figures, "optimiser_step": step})

    def close(self) -> None:
        """Upload what is still held back, or leave it for ``wandb sync``."""
        self._run.finish()


def _identifier(path: Path) -> str:
    """The identifier that the file holds; a new one is drawn and kept there."""
    if not path.exists():
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
