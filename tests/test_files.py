"""Files that are written whole."""

import os
import stat
from pathlib import Path

import pytest

from hcl.files import written_whole


def test_two_who_write_a_file_at_once_write_it_one_after_the_other(tmp_path):
    """Here with the same process number, as in two containers on one folder."""
    path = tmp_path / "metrics.json"
    with written_whole(path) as first:
        first.write(b"the first")
        with written_whole(path) as second:
            second.write(b"the second")
        assert path.read_bytes() == b"the second"
    assert path.read_bytes() == b"the first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "file"):
            pass
    finally:
        os.umask(before)
    assert stat.filemode((tmp_path / "file").stat().st_mode) == "-rw-r-----"


def test_a_write_that_fails_leaves_what_stood_there_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def fail():
        with written_whole(path) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_disk_before_it_takes_its_place_and_its_name_after(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(path: Path, target: Path) -> None:
        done.append("name")
        replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    with written_whole(tmp_path / "file") as file:
        file.write(b"content")
    assert done == ["file", "name", "folder"]
