"""Two Gloo ranks compute what one process computes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from hcl.engine.checkpoint import load_checkpoint
from tests.engine.support import arguments

ROOT = Path(__file__).parents[2]


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["epoch", "online"])
def test_two_ranks_give_the_losses_bank_and_centroids_of_one(tiny_settings, tmp_path, mode):
    tiny_settings = tiny_settings | {"clustering.mode": mode}
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert train.main(arguments(tiny_settings | {"output": str(alone)})) == 0
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "train.py",
    ]
    subprocess.run(
        [*torchrun, *arguments(tiny_settings | {"output": str(together)})], cwd=ROOT, check=True, timeout=240
    )

    steps = [[r for r in records(folder) if r["kind"] == "step"] for folder in (alone, together)]
    assert len(steps[0]) == len(steps[1]) == 9
    for one, two in zip(*steps, strict=True):
        for name in ("loss", "loss_fg", "loss_bg", "loss_prediction"):
            assert abs(one[name] - two[name]) < 1e-5
    states = [load_checkpoint(folder / "checkpoint.pt") for folder in (alone, together)]
    for name in ("centroids_foreground", "centroids_background"):
        torch.testing.assert_close(states[0][name], states[1][name], atol=1e-5, rtol=0)
    for name in ("bank_foreground", "bank_background") if mode == "epoch" else ():
        torch.testing.assert_close(states[0][name], states[1][name], atol=1e-5, rtol=0)
