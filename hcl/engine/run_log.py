"""The records of a run: a JSON-lines file, curves on a board and lines on the terminal."""

import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hcl.engine.boards import Logger, open_board
from hcl.files import naming, written_whole


class RunLog:
    """Writes the records of one run; on ranks other than the main one it does nothing.

    Args:
        folder: folder of ``log.jsonl`` and of the board's files; created if missing.
        enabled: False on ranks that stay quiet.
        step: the step that the run continues from; records of later steps, written before an interruption and
            about to be written again, are dropped.
        logger: the board that shows the curves.
        settings: the run's settings, for boards that show them.

    Raises:
        ModuleNotFoundError: the board's package is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        enabled: bool,
        step: int,
        logger: Logger = "tensorboard",
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.enabled = enabled
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "log.jsonl"
        _drop_after(self._path, step)
        self._path.touch()
        with naming(folder):
            self._board = open_board(logger, folder, step, settings or {})

    def record(self, kind: str, step: int, **figures: Any) -> None:
        """Record figures under ``kind`` ("step", "clustering", ...) at an optimiser step.

        Raises:
            OSError: they could not be written; a line that is cut short is removed when the run is resumed.
        """
        if not self.enabled:
            return
        with naming(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
        with naming(self._path.parent):
            numbers = {name: value for name, value in figures.items() if isinstance(value, (int, float))}
            self._board.show({f"{kind}/{name}": value for name, value in numbers.items()}, step)

    def say(self, line: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if self.enabled:
            tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Flush and close the files."""
        if self.enabled:
            with naming(self._path.parent):
                self._board.close()


def _drop_after(path: Path, step: int) -> None:
    """Keep the complete records of the work done up to ``step``; a line cut short by a crash is dropped."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] < step or (record["step"] == step and record["kind"] == "step"):
            kept.append(line + "\n")
    with written_whole(path) as file:
        file.write("".join(kept).encode())
