import json

import torch

from benchmarks import saving
from tests.engine.support import same

SMALL = ["--images", "20", "--cells", "16", "--width", "8", "--rounds", "2"]


def test_both_ways_of_saving_are_timed(capsys, tmp_path):
    report = saving.main([*SMALL, "--folder", str(tmp_path)])
    assert json.loads(capsys.readouterr().out) == report
    assert all(value > 0 for figures in report["rounds"] for value in figures.values())
    assert not list(tmp_path.iterdir())


def test_the_banks_that_are_measured_can_be_read_again(tmp_path):
    options = saving.parse(SMALL)
    banks = saving.banks_of(options)
    assert sum(bank.total for bank in banks) == 96
    saving.saved_apart(tmp_path, saving.state_of(options), banks)
    state, found = saving.SavedRun(tmp_path, 3, saving.ALONE).load().content
    assert same(found, banks)
    assert len([name for name in state if name.startswith("copy_")]) == saving.COPIES
    assert all(torch.isfinite(value).all() for value in state["copy_0"].values())
