"""What is kept in memory is what fits there, and changes nothing else."""

import pytest

from hcl.commands import train
from hcl.data.dataset import DataConfig, open_dataset
from hcl.engine.checkpoint import load_checkpoint
from hcl.engine.keeping import keeping
from pipelines.kept_images import decoded_bytes
from tests.engine.support import ALONE, arguments, same, saved_state


@pytest.fixture
def dataset(scenes_root):
    return open_dataset(DataConfig("scenes", str(scenes_root), "train"))


def test_images_are_kept_where_they_fit_into_a_quarter_of_what_is_free(dataset, monkeypatch):
    needed = decoded_bytes(dataset)
    assert needed == 12 * 96 * 96 * 3
    for free, fits in ((4 * needed, True), (4 * needed - 1, False)):
        monkeypatch.setattr("hcl.engine.keeping.free_memory", lambda device, free=free: free)
        found = keeping("auto", dataset, ALONE)
        assert (found.keeps, found.taken) == (fits, needed if fits else 0)
        assert keeping("always", dataset, ALONE)[::2] == (True, needed)
        assert keeping("never", dataset, ALONE)[::2] == (False, 0)


def test_a_run_that_keeps_its_images_comes_to_the_same_bits_and_says_so(tiny_settings, tmp_path, capsys):
    runs = {}
    for keep in ("never", "auto"):
        folder = tmp_path / keep
        assert train.main(arguments(tiny_settings | {"output": str(folder), "keep_images": keep})) == 0
        runs[keep] = saved_state(folder)
    assert same(runs["never"], runs["auto"])
    printed = capsys.readouterr()
    assert "images are decoded again for every view: keep_images is never" in printed.out + printed.err
    assert "images are decoded once and kept: all of them take 0.00 GiB" in printed.out + printed.err


def test_levels_get_only_the_room_that_images_leave(tiny_settings, tmp_path, monkeypatch, dataset):
    settings = tiny_settings | {"epochs": 1, "keep_images": "always"}
    room = decoded_bytes(dataset)
    monkeypatch.setattr("hcl.engine.bank_pass.free_memory", lambda device: room)
    assert train.main(arguments(settings)) == 0
    assert not load_checkpoint(tmp_path / "run" / "checkpoint.pt")["bank_reuses"]
