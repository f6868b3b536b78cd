"""What ranks must agree on: the checkpoint to go on from, and the images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hcl.clustering.bank import Bank
from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.samples import Dataset
from hcl.distributed import World, connect
from hcl.engine import checkpoint
from hcl.engine.checkpoint import load_checkpoint
from hcl.engine.image_identity import identity_of, require_same
from hcl.engine.saved_run import SavedRun
from hcl.models.weights import CheckpointError
from tests.engine.support import ALONE
from tests.ranks import on_ranks

ROWS = torch.arange(10.0).view(5, 2)


def _agree(folder: Path, dataset: Dataset) -> None:
    """What each of the ranks does."""
    with connect("cpu") as world:
        _go_on_from_what_all_can_read(world, folder)
        _refuse_other_images(world, dataset)


def _go_on_from_what_all_can_read(world: World, folder: Path) -> None:
    """Of two checkpoints with banks, of which one rank then finds a file damaged."""
    run = SavedRun(folder, 3, world)
    assert not run.exists()
    share = Bank(ROWS[world.slice(len(ROWS))], len(ROWS))
    for epoch in range(2):
        run.bank_files.write(epoch, (share, share))
        run.save({"epoch": epoch})
    assert run.exists()
    if world.rank == 1:
        (folder / "banks" / "1.1of2.pt").write_bytes(b"damaged")
    world.barrier()
    (state, banks), path, refused = run.load()
    assert (state["epoch"], path.name) == (0, "checkpoint.1.pt")
    assert torch.equal(banks[0].rows, share.rows)
    says = "another rank cannot use" if world.is_main else "needs token banks that cannot be used"
    assert says in refused[0]


def _refuse_other_images(world: World, dataset: Dataset) -> None:
    assert identity_of(dataset, world)["count"] == len(dataset)
    seen = dataset if world.is_main else replace(dataset, samples=dataset.samples[1:])
    with pytest.raises(
        ValueError, match=f"the ranks see different images of .*: {len(dataset)} on the main rank"
    ):
        identity_of(seen, world)


def test_ranks_agree_on_a_checkpoint_and_on_the_images(tmp_path, scenes_root):
    dataset = open_dataset(DataConfig("scenes", str(scenes_root), "train"))
    on_ranks(2, _agree, tmp_path, dataset)


@pytest.mark.parametrize("kept", [2, 3])
def test_a_checkpoint_that_cannot_be_used_takes_no_usable_ones_place(tmp_path, monkeypatch, kept):
    run = SavedRun(tmp_path, kept, ALONE)
    for epoch in range(2):
        run.save({"epoch": epoch})
    run.checkpoints.newest.write_bytes(b"damaged")
    (tmp_path / "checkpoint.pt.refused").write_bytes(b"of another time")
    assert run.load().content.state["epoch"] == 0
    assert run.checkpoints.newest.read_bytes() == b"damaged"

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    # Between the renames and after them, the run has what it went on from.
    monkeypatch.setattr(checkpoint, "sync_folder", killed)
    with pytest.raises(KeyboardInterrupt):
        run.save({"epoch": 5})
    assert [load_checkpoint(path)["epoch"] for path in run.checkpoints.existing()] == [5, 0]
    assert (tmp_path / "checkpoint.pt.refused1").read_bytes() == b"damaged"
    assert (tmp_path / "checkpoint.pt.refused").read_bytes() == b"of another time"


def test_without_a_usable_checkpoint_each_is_named(tmp_path):
    run = SavedRun(tmp_path, 2, ALONE)
    for epoch in range(2):
        run.save({"epoch": epoch})
    for path in run.checkpoints.existing():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt.*checkpoint\.1\.pt"):
        run.load()


def test_as_many_other_images_are_refused(scenes_root):
    dataset = open_dataset(DataConfig("scenes", str(scenes_root), "train"))
    before = identity_of(dataset, ALONE)
    require_same(before, identity_of(dataset, ALONE), Path("checkpoint.pt"))
    turned = replace(dataset, samples=dataset.samples[::-1])
    with pytest.raises(ValueError, match=r"checkpoint\.pt belongs to a run on 12 images"):
        require_same(before, identity_of(turned, ALONE), Path("checkpoint.pt"))


def test_ranks_wait_until_the_main_one_has_saved(tmp_path):
    saved = []

    class Waiting(World):
        def barrier(self) -> None:
            saved.append((tmp_path / "checkpoint.pt").exists())

    SavedRun(tmp_path, 1, Waiting.alone(torch.device("cpu"))).save({"epoch": 0})
    assert saved == [False, True]


def test_a_rank_goes_on_from_what_the_main_one_sees(tmp_path):
    """A shared folder may show a file to one rank before another."""

    class Told(World):
        def broadcast_object(self, value: object) -> object:
            return [tmp_path / "checkpoint.1.pt"]

    run = SavedRun(tmp_path, 2, Told.alone(torch.device("cpu")))
    for epoch in range(2):
        run.save({"epoch": epoch})
    assert run.load().content.state["epoch"] == 0
