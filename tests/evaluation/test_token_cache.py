"""The folder of kept tokens stays within its size."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from hcl.evaluation.token_cache import alone_in, make_room, mark_used


@pytest.fixture
def stores(tmp_path) -> list[Path]:
    """Three stores of a thousand bytes, the first of them used longest ago, and another folder."""
    made = []
    for age, name in ((300, "a"), (200, "b"), (100, "c")):
        store = tmp_path / name
        store.mkdir()
        (store / "done.npy").write_bytes(bytes(1000))
        before = os.stat(store).st_mtime - age
        os.utime(store, (before, before))
        made.append(store)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photograph.jpg").write_bytes(bytes(5000))
    return made


def left(tmp_path: Path) -> str:
    return "".join(sorted(path.name for path in tmp_path.iterdir() if len(path.name) == 1))


@pytest.mark.parametrize(
    ("needed", "expected"), [(0, "abc"), (500, "abc"), (501, "bc"), (1501, "c"), (9999, "")]
)
def test_those_used_longest_ago_make_room(tmp_path, stores, needed, expected):
    make_room(tmp_path, needed, 3500)
    assert left(tmp_path) == expected
    assert (tmp_path / "other" / "photograph.jpg").exists()


def test_using_a_store_keeps_it(tmp_path, stores):
    mark_used(stores[0])
    make_room(tmp_path, 501, 3500)
    assert left(tmp_path) == "ac"


def test_a_store_that_another_program_fills_stays(tmp_path, stores):
    with alone_in(stores[0]):
        make_room(tmp_path, 501, 3500)
    assert left(tmp_path) == "ac"


def test_a_full_disk_asks_for_room_too(tmp_path, stores, monkeypatch, caplog):
    free = lambda folder: SimpleNamespace(free=3000 - 1000 * len(left(tmp_path)))  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", free)
    make_room(tmp_path, 2000, 10**9)
    assert left(tmp_path) == "c"
    assert f"tokens used longest ago, {stores[0]}" in caplog.text
