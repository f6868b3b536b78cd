"""Reading what a run noted in ``log.jsonl``."""

import json
from pathlib import Path
from typing import Any


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a run in the order of the file; a last line cut short by a crash is left out.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: a line is no record; the message names it.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"line {number} of {path} is no JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"line {number} of {path} is no record but a {type(record).__name__}")
        records.append(record)
    return records
