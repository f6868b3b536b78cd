"""Files that someone made who means harm, and little memory to read them in."""

import io
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hcl.models.head_files import load_linear_classifier, load_seg_head
from hcl.models.weights import CheckpointError, read_checkpoint

READERS = (read_checkpoint, load_seg_head, load_linear_classifier)
LIMIT = 1 << 30  # bytes that reading may add to what the process has reserved


class Calls:
    """Unpickling this calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Reserving a lot more memory fails."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def archive(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def saved_entries(content: Any) -> dict[str, bytes]:
    """What torch.save writes, by name."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as file:
        return {name: file.read(name) for name in file.namelist()}


def with_pickle(entries: dict[str, bytes], change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    return {name: change(body) if name.endswith("data.pkl") else body for name, body in entries.items()}


def refuse(path: Path, message: str | None = None) -> None:
    """Every reader refuses the file by name, in one line."""
    for read in READERS:
        with pytest.raises(CheckpointError, match=message) as refusal:
            read(path)
        assert str(refusal.value).startswith(str(path))
        assert "\n" not in str(refusal.value)
