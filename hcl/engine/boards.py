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
        """Flush what is still buffered."""


def require_board(logger: Logger) -> Any:
    """Import the package of an optional board; None for TensorBoard, which is a dependency.

    Raises:
        ModuleNotFoundError: the package is not installed.
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
    """Open the board of a run.

    Args:
        logger: which board.
        folder: the run's folder, where the board keeps its files.
        step: the step that the run continues from.
        settings: the run's settings, nested.

    Raises:
        ModuleNotFoundError: its package is not installed.
    """
    return TensorBoard(folder, step) if logger == "tensorboard" else WeightsAndBiases(folder, settings)


class TensorBoard:
    """Event files in the run's folder; points that a resumed run writes again replace the earlier ones."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def show(self, figures: dict[str, float], step: int) -> None:
        """Add a point to the curve of each name."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is still buffered."""
        self._writer.close()


class WeightsAndBiases:
    """One run of Weights & Biases per folder; a resumed run continues it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._run = require_board("wandb").init(
            project=os.environ.get("WANDB_PROJECT", "hcl"),
            name=folder.name,
            id=_identifier(folder / "wandb_id"),
            resume="allow",
            dir=str(folder),
            config=settings,
        )
        # Weights & Biases' own step count can only increase, but a resumed run goes back to its checkpoint.
        self._run.define_metric("optimiser_step")
        self._run.define_metric("*", step_metric="optimiser_step")

    def show(self, figures: dict[str, float], step: int) -> None:
        """Add a point to the curve of each name."""
        self._run.log({**figures, "optimiser_step": step})

    def close(self) -> None:
        """Upload what is still buffered, or leave it for ``wandb sync``."""
        self._run.finish()


def _identifier(path: Path) -> str:
    """Read the run's identifier from a file; if there is none, draw one and write it there."""
    if not path.exists():
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
