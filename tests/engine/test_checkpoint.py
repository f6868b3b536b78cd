import random
import re
from pathlib import Path

import pytest
import torch

from hcl.engine.checkpoint import FORMAT, Checkpoints, load_checkpoint, newest_usable
from hcl.models.weights import CheckpointError
from tests.engine.support import same


def steps(checkpoints: Checkpoints) -> list[int]:
    """Of the checkpoints that are there, newest first."""
    return [load_checkpoint(path)["step"] for path in checkpoints.existing()]


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 3, "weights": torch.arange(4.0), "nothing": None})
    assert checkpoints.newest == tmp_path / "checkpoint.pt"
    state = load_checkpoint(checkpoints.newest)
    assert state["step"] == 3
    assert state["nothing"] is None
    assert torch.equal(state["weights"], torch.arange(4.0))


def test_the_last_ones_are_kept_in_order(tmp_path):
    checkpoints = Checkpoints(tmp_path, kept=12)
    for step in range(15):
        checkpoints.save({"step": step})
    assert steps(checkpoints) == list(range(14, 2, -1))
    fewer = Checkpoints(tmp_path, kept=2)
    fewer.save({"step": 15})
    assert steps(fewer) == [15, 14]


def test_the_best_one_is_kept_beside_them(tmp_path):
    checkpoints = Checkpoints(tmp_path, kept=1)
    for step in range(4):
        checkpoints.save({"step": step}, best=step == 1)
    assert load_checkpoint(checkpoints.best)["step"] == 1
    assert steps(checkpoints) == [3]


@pytest.mark.parametrize("links", [True, False])
def test_the_best_one_is_written_once_where_files_may_have_two_names(tmp_path, monkeypatch, links):
    def refuse(*_) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    checkpoints = Checkpoints(tmp_path, kept=2)
    for step in range(3):
        checkpoints.save({"step": step}, best=step == 1)
        if step == 1:
            assert checkpoints.best.samefile(checkpoints.newest) == links
    assert load_checkpoint(checkpoints.best)["step"] == 1
    assert steps(checkpoints) == [2, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"best.pt", "checkpoint.pt", "checkpoint.1.pt"}


def test_a_failed_save_leaves_those_before_and_no_rubbish(tmp_path):
    checkpoints = Checkpoints(tmp_path, kept=2)
    checkpoints.save({"step": 2})
    checkpoints.save({"step": 3})
    with pytest.raises(Exception, match="pickle"):
        checkpoints.save({"step": 4, "bad": (item for item in ())})
    assert steps(checkpoints) == [3, 2]
    assert sorted(tmp_path.iterdir()) == sorted(checkpoints.existing())


@pytest.mark.parametrize("missing", ["checkpoint.pt", "checkpoint.1.pt"])
def test_a_gap_left_by_a_kill_between_renames_is_passed_over_and_closed(tmp_path, missing):
    checkpoints = Checkpoints(tmp_path, kept=3)
    for step in range(3):
        checkpoints.save({"step": step})
    (tmp_path / missing).unlink()
    found = newest_usable(checkpoints.existing(), load_checkpoint)
    assert found.content["step"] == (1 if missing == "checkpoint.pt" else 2)
    checkpoints.save({"step": 3})
    assert steps(checkpoints)[0] == 3
    assert len(steps(checkpoints)) == (2 if missing == "checkpoint.pt" else 3)


def test_a_truncated_checkpoint_gives_way_to_the_one_before_which_is_said(tmp_path):
    checkpoints = Checkpoints(tmp_path, kept=2)
    for step in range(2):
        checkpoints.save({"step": step, "weights": torch.zeros(1000)})
    checkpoints.newest.write_bytes(checkpoints.newest.read_bytes()[:1000])
    found = newest_usable(checkpoints.existing(), load_checkpoint)
    assert found.content["step"] == 0
    assert found.path == tmp_path / "checkpoint.1.pt"
    assert re.search(r"checkpoint\.pt is damaged", *found.refused)


def test_no_usable_checkpoint_is_an_error_that_names_each(tmp_path):
    checkpoints = Checkpoints(tmp_path, kept=2)
    for step in range(2):
        checkpoints.save({"step": step})
    for path in checkpoints.existing():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt.*checkpoint\.1\.pt"):
        newest_usable(checkpoints.existing(), load_checkpoint)


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    state = {"weights": torch.randn(40, 10), "settings": {"lr": 1e-3, "name": "tiny"}, "bank": None}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state)
    whole = checkpoints.newest.read_bytes()
    rng = random.Random(7)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        checkpoints.newest.write_bytes(damaged)
        try:
            found = load_checkpoint(checkpoints.newest)
        except CheckpointError:
            refused += 1
        else:
            assert same(found, {"format": FORMAT, **state})
    assert refused > 100


def test_every_bit_of_the_weights_is_guarded(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    weights = torch.randn(500)
    checkpoints.save({"weights": weights})
    whole = checkpoints.newest.read_bytes()
    start = whole.index(weights.numpy().tobytes())
    for offset in range(0, 2000, 37):
        damaged = bytearray(whole)
        damaged[start + offset] ^= 1 << (offset % 8)
        checkpoints.newest.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="checksum"):
            load_checkpoint(checkpoints.newest)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"linear_classifier": {}}, path)
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    path = tmp_path / "old.pt"
    torch.save({"format": FORMAT - 1, "step": 3}, path)
    with pytest.raises(CheckpointError, match=rf"format {FORMAT - 1}.*{FORMAT}"):
        load_checkpoint(path)


def test_what_a_kill_left_is_not_written_through(tmp_path):
    """Where the best one had its second name already, but not yet its last."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 0}, best=True)
    (tmp_path / ".checkpoint.fresh").write_bytes(b"left by a kill")
    (tmp_path / ".best.fresh").hardlink_to(tmp_path / ".checkpoint.fresh")
    checkpoints.save({"step": 1}, best=True)
    assert load_checkpoint(checkpoints.best)["step"] == 1
    assert steps(checkpoints) == [1]
