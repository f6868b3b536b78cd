"""Reading the record of a run from its folder."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from hcl.engine.checkpoint import Checkpoints, load_checkpoint, newest_usable
from hcl.engine.log_reader import read_records
from hcl.nested_settings import flattened


class RunRecord(NamedTuple):
    """A run, as far as its folder records it.

    Attributes:
        folder: folder of the run.
        records: records of its log, in order; empty without a log.
        checkpoint: the newest usable checkpoint; None if there are no checkpoints at all.
        settings: settings of the run by group and name, as JSON; empty without a checkpoint.
    """

    folder: Path
    records: list[dict[str, Any]]
    checkpoint: Path | None
    settings: dict[str, dict[str, str]]


def read_run(folder: Path) -> RunRecord:
    """Read a run's folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the log is damaged, or no checkpoint in the folder can be used.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: give the --output of a training run")
    log, checkpoints = folder / "log.jsonl", Checkpoints(folder).existing()
    found = newest_usable(checkpoints, load_checkpoint) if checkpoints else None
    return RunRecord(
        folder,
        read_records(log) if log.is_file() else [],
        found.path if found else None,
        _grouped(found.content["config"]) if found else {},
    )


def _grouped(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Group settings by name; those without a group come first, under "run"."""
    groups: dict[str, dict[str, str]] = {"run": {}}
    for name, value in flattened(config).items():
        group, _, own = name.rpartition(".")
        text = value if isinstance(value, str) else json.dumps(value)
        groups.setdefault(group or "run", {})[own or name] = text
    return groups
