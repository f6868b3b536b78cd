"""The folder of kept tokens stays within its size."""

import errno
import fcntl
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from hcl.evaluation.token_cache import in_use, new_store


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


def make(tmp_path: Path, needed: int, limit: float) -> None:
    with new_store(tmp_path / "n", needed, limit) as draft:
        (draft / "done.npy").touch()


@pytest.mark.parametrize(
    ("needed", "expected"), [(0, "abcn"), (500, "abcn"), (501, "bcn"), (1501, "cn"), (3500, "n")]
)
def test_those_used_longest_ago_make_room(tmp_path, stores, needed, expected):
    make(tmp_path, needed, 3500)
    assert left(tmp_path) == expected
    assert (tmp_path / "other" / "photograph.jpg").exists()


def test_nothing_is_deleted_for_one_that_takes_too_much_by_itself(tmp_path, stores):
    with pytest.raises(OSError, match=r"more than the .* GiB of --token_cache_gib"):
        make(tmp_path, 3501, 3500)
    assert left(tmp_path) == "abc"


def test_using_a_store_keeps_it(tmp_path, stores):
    with in_use(stores[0]):
        pass
    make(tmp_path, 501, 3500)
    assert left(tmp_path) == "acn"


def test_a_store_in_use_stays_and_what_the_rest_comes_to_is_said(tmp_path, stores, caplog):
    with in_use(stores[0]), in_use(stores[1]), in_use(stores[1]):
        os.utime(stores[0], (0, 0))
        make(tmp_path, 2000, 3500)
    assert left(tmp_path) == "abn"
    assert "more than --token_cache_gib, because the others are in use" in caplog.text


def test_a_full_disk_asks_for_room_too(tmp_path, stores, monkeypatch, caplog):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    make(tmp_path, 2000, 10**9)
    assert left(tmp_path) == "cn"
    assert f"of the least recently used tokens, {stores[0]}" in caplog.text


def test_nothing_is_deleted_where_the_disk_is_too_small_all_the_same(tmp_path, stores, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    with in_use(stores[2]), pytest.raises(OSError, match="choose another folder with --token_cache"):
        make(tmp_path, 2101, 10**9)
    assert left(tmp_path) == "abc"


def test_what_cannot_be_made_leaves_nothing(tmp_path, stores):
    with pytest.raises(OSError, match="quota"), new_store(tmp_path / "n", 5, 3500):
        raise OSError("quota exceeded")
    (tmp_path / f"{'0f' * 16}.draft").mkdir()
    others = [tmp_path / "thesis.draft", tmp_path / "letter.draft"]
    others[0].mkdir()
    others[1].touch()
    make(tmp_path, 5, 3500)
    assert set(tmp_path.glob("*.draft")) == set(others)


def test_a_file_system_without_locks_protects_nothing_and_deletes_nothing(tmp_path, stores, monkeypatch):
    def refuse(file, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with in_use(stores[1]):
        make(tmp_path, 1501, 3500)
    assert left(tmp_path) == "abcn"


def test_what_is_interrupted_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_store(tmp_path / "n", 5, 3500):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
