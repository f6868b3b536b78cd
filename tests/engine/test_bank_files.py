"""Token banks in files beside the checkpoints."""

import os
import time
from contextlib import nullcontext
from pathlib import Path
from threading import get_ident
from types import SimpleNamespace

import pytest
import torch

from hcl.clustering.bank import Bank
from hcl.clustering.mogo import Banks
from hcl.commands import train
from hcl.distributed import World
from hcl.engine import bank_files
from hcl.engine.bank_files import BankFiles
from hcl.engine.checkpoint import Checkpoints, load_checkpoint
from hcl.engine.step import TrainingStep
from hcl.models.weights import CheckpointError
from tests.engine.support import ALONE, arguments, same, saved_banks, saved_state

WHOLE = (torch.arange(14.0).view(7, 2), 100 + torch.arange(4.0).view(2, 2))
"""Rows of both banks; of the second there are fewer than some have ranks."""


class Rank(World):
    """One of several ranks, whose turns come one after the other."""

    def barrier(self) -> None:
        """There is nobody to wait for."""


def ranks(size: int) -> list[Rank]:
    return [Rank(rank, size, torch.device("cpu")) for rank in range(size)]


def shares(whole: tuple[torch.Tensor, torch.Tensor], rank: World) -> Banks:
    foreground, background = (Bank(rows[rank.slice(len(rows))], len(rows)) for rows in whole)
    return foreground, background


def written(folder: Path, size: int, epoch: int = 0) -> dict:
    """What a checkpoint says of the banks, once so many ranks have written them."""
    for rank in ranks(size):
        files = BankFiles(folder, 1, rank)
        files.write(epoch, shares(WHOLE, rank))
        record = files.finish()
    return record


@pytest.mark.parametrize("readers", [1, 2, 3, 5])
@pytest.mark.parametrize("writers", [1, 2, 3, 5])
def test_any_number_of_ranks_reads_its_shares_of_what_any_number_wrote(tmp_path, writers, readers):
    record = written(tmp_path, writers)
    for rank in ranks(readers):
        found = BankFiles(tmp_path, 1, rank).read(record)
        assert same(found, shares(WHOLE, rank))


def test_a_rank_reads_no_file_without_rows_of_its_own(tmp_path):
    record = written(tmp_path, 3)
    (tmp_path / "banks" / "0.2of3.pt").unlink()
    first, *_, last = ranks(3)
    BankFiles(tmp_path, 1, first).read(record)
    with pytest.raises(
        CheckpointError, match=r"0\.2of3\.pt is missing: to resume, a run needs its checkpoint and the folder"
    ):
        BankFiles(tmp_path, 1, last).read(record)


def test_the_thread_that_writes_takes_the_gpu_of_its_rank_before_its_stream(tmp_path, monkeypatch):
    taken = []
    stream = SimpleNamespace(device=torch.device("cuda", 1))
    monkeypatch.setattr(bank_files, "_side_stream", lambda device: stream)
    for name in ("set_device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda what: taken.append((get_ident(), what)) or nullcontext())
    written(tmp_path, 1)
    (first, device), (second, where) = taken
    assert (device, where) == (stream.device, stream)
    assert first == second != get_ident()


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    record = written(tmp_path, 1)
    path = tmp_path / "banks" / "0.0of1.pt"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[:-40]
    else:
        content[content.index(WHOLE[0].numpy().tobytes()) + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{path} is damaged"):
        BankFiles(tmp_path, 1, ALONE).read(record)


def test_banks_of_another_shape_than_the_checkpoint_needs_are_refused(tmp_path):
    record = written(tmp_path, 1)
    with pytest.raises(CheckpointError, match="does not hold the token banks that its checkpoint needs"):
        BankFiles(tmp_path, 1, ALONE).read(record | {"foreground": [8, 2]})


def test_a_write_that_fails_is_told_when_it_is_waited_for(tmp_path):
    (tmp_path / "banks").write_text("in the way")
    files = BankFiles(tmp_path, 1, ALONE)
    files.write(0, shares(WHOLE, ALONE))
    with pytest.raises(OSError, match="banks"):
        files.finish()


def test_a_run_that_fails_leaves_no_write_behind(tiny_settings, monkeypatch):
    original, written = bank_files.write_state, []

    def slowly(*given) -> None:
        time.sleep(1)
        original(*given)
        written.append(given)

    monkeypatch.setattr(bank_files, "write_state", slowly)
    monkeypatch.setattr(TrainingStep, "__call__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.main(arguments(tiny_settings))
    assert written


def test_every_kept_checkpoint_has_its_banks_and_no_others_stay(tiny_settings):
    settings = tiny_settings | {"epochs": 5, "checkpoints_kept": 2, "checkpoint_every": 2}
    (rubbish := Path(settings["output"]) / "banks" / ".3.fresh").parent.mkdir(parents=True)
    rubbish.write_text("left by a kill")
    assert train.main(arguments(settings)) == 0
    folder = Path(settings["output"])
    kept = [load_checkpoint(path) for path in Checkpoints(folder).existing()]
    assert [state["banks"]["epoch"] for state in kept] == [4, 4]
    assert {path.name for path in (folder / "banks").iterdir()} == {"3.0of1.pt", "4.0of1.pt"}
    assert all(saved_banks(folder, state) for state in kept)


def test_banks_are_written_once_an_epoch_and_checkpoints_hold_none_of_their_rows(tiny_settings, monkeypatch):
    writes = []
    original = bank_files.write_state
    monkeypatch.setattr(bank_files, "write_state", lambda *given: (writes.append(1), original(*given)))
    settings = tiny_settings | {"checkpoint_every": 1}
    assert train.main(arguments(settings)) == 0
    assert len(writes) == settings["epochs"]
    folder = Path(settings["output"])
    state = load_checkpoint(folder / "checkpoint.pt")
    rows = sum(map(len, saved_banks(folder, state).values()))
    assert rows == 12 * 16
    assert all(len(value) < rows for value in state.values() if isinstance(value, torch.Tensor))


def test_the_online_mode_has_no_files_of_banks(tiny_settings):
    assert train.main(arguments(tiny_settings | {"clustering.mode": "online"})) == 0
    assert not (Path(tiny_settings["output"]) / "banks").exists()
    assert saved_state(tiny_settings["output"])["banks"] is None


def test_a_checkpoint_whose_banks_are_damaged_is_passed_over(tiny_settings, tmp_path, capsys):
    undisturbed = tiny_settings | {"output": str(tmp_path / "undisturbed")}
    for settings in (undisturbed, tiny_settings | {"epochs": 2}):
        assert train.main(arguments(settings)) == 0
    newest = Path(tiny_settings["output"]) / "banks" / "1.0of1.pt"
    os.truncate(newest, newest.stat().st_size // 2)
    assert train.main([*arguments(tiny_settings), "--resume"]) == 0
    told = capsys.readouterr().err
    assert "checkpoint.pt needs token banks that cannot be used: " in told
    assert f"{newest} is damaged" in told
    assert "from epoch 2, step 1" in told
    assert same(saved_state(tiny_settings["output"]), saved_state(undisturbed["output"]))


def test_a_file_has_its_name_once_it_is_on_disk_and_every_rank_waits_for_that(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, Path.replace

    class Waiting(World):
        def barrier(self) -> None:
            done.append("all wait")

    def synced(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def replaced(path: Path, target: Path) -> None:
        done.append(target.name)
        replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    files = BankFiles(tmp_path, 1, Waiting.alone(torch.device("cpu")))
    files.write(3, shares(WHOLE, ALONE))
    files.finish()
    assert done == [".0.fresh", "3.0of1.pt", "banks", "all wait"]


def test_what_is_saved_before_new_banks_are_made_needs_those_that_were_read(tmp_path):
    record = written(tmp_path, 1, epoch=3)
    files = BankFiles(tmp_path, 1, ALONE)
    files.read(record)
    assert files.finish() == record
