"""What a run leaves to read: a JSON-lines file, TensorBoard events and lines on the terminal."""

import json
import sys
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


class RunLog:
    """Writes the records of one run; on other ranks than the main one it does nothing.

    Args:
        folder: where ``log.jsonl`` and the TensorBoard events go; made if missing.
        enabled: False on ranks that stay quiet.
        step: the step that the run continues from; records of later steps, written before an interruption and
            about to be written again, are dropped.
    """

    def __init__(self, folder: Path, *, enabled: bool, step: int) -> None:
        self.enabled = enabled
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.jsonl"
        _drop_after(path, step)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder), purge_step=step + 1)

    def record(self, kind: str, step: int, **figures: Any) -> None:
        """Note figures under ``kind`` ("step", "clustering", ...) at an optimiser step."""
        if not self.enabled:
            return
        self._file.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
        self._file.flush()
        for name, value in figures.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def say(self, line: str) -> None:
        """Print a line, above a progress bar where there is one."""
        if self.enabled:
            tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Flush and close the files."""
        if self.enabled:
            self._file.close()
            self._board.close()


def _drop_after(path: Path, step: int) -> None:
    """Keep the whole records of the work done up to ``step``; a line cut short by a crash goes too."""
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
    path.write_text("".join(kept), encoding="utf-8")
