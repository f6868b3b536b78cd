"""Reading a run's ``log.jsonl``."""

import json
from pathlib import Path
from typing import Any


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return a run's records in the order of the file, without a last line that a crash cut short.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: a line is not a record; the message names it.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"line {number} of {path} is not valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"line {number} of {path} is a {type(record).__name__}, not a record")
        records.append(record)
    return records
