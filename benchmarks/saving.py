"""How long training waits for its checkpoints: `python -m benchmarks.saving` prints one JSON object.

A state of the size of a run's (the weights of the published head in both branches, and AdamW's two averages)
is saved as the newest and best checkpoint, with the token banks of a data set. For comparison, everything is
saved in one file, as other programs do: then training also waits for the banks.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import give, machine
from benchmarks.options import Parser, add_integers
from hcl.clustering.bank import Bank
from hcl.clustering.mogo import Banks
from hcl.distributed import World
from hcl.engine.checkpoint import Checkpoints
from hcl.engine.saved_run import SavedRun
from hcl.models.seg_head import SegHead, SegHeadConfig

ALONE = World.alone(torch.device("cpu"))
COPIES = 4
"""Copies of the head's weights: both branches and AdamW's two averages."""


def state_of(options: argparse.Namespace) -> dict[str, dict[str, Tensor]]:
    """Make a state as large as a run's without banks, except for the predictor and its averages."""
    head = SegHead((options.levels + 1) * options.width, SegHeadConfig()).state_dict()
    return {f"copy_{copy}": {name: value.clone() for name, value in head.items()} for copy in range(COPIES)}


def banks_of(options: argparse.Namespace) -> Banks:
    """Make banks of random rows, 0.4 of them foreground."""
    rows = int(options.images * options.cells * options.share)
    sizes = (int(0.4 * rows), rows - int(0.4 * rows))
    foreground, background = (Bank(torch.randn(size, SegHeadConfig().projection_dim), size) for size in sizes)
    return foreground, background


def seconds(act: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def saved_apart(folder: Path, state: dict[str, Any], banks: Banks) -> dict[str, float]:
    """Time starting to write the banks, finishing it, and the checkpoints after that."""
    run = SavedRun(folder, 3, ALONE)
    return {
        "begin_banks": seconds(lambda: run.bank_files.write(0, banks)),
        "banks_in_background": seconds(run.bank_files.finish),
        "checkpoints": seconds(lambda: run.save(state, best=True)),
    }


def saved_whole(folder: Path, state: dict[str, Any], banks: Banks) -> dict[str, float]:
    """Time the checkpoints with the banks in them."""
    whole = state | {"banks": [bank.rows for bank in banks]}
    return {"everything_in_one_file": seconds(lambda: Checkpoints(folder, 3).save(whole, best=True))}


def measure(options: argparse.Namespace) -> list[dict[str, float]]:
    """Measure both ways in turns, each in a new folder."""
    state, banks = state_of(options), banks_of(options)
    rounds = []
    for _ in range(options.rounds):
        figures: dict[str, float] = {}
        for way in (saved_apart, saved_whole):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                figures |= way(Path(folder), state, banks)
        rounds.append(figures)
    return rounds


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="python -m benchmarks.saving", description=__doc__)
    parser.add_argument("--folder", default=".", help="a folder on the disk to measure (default .)")
    parser.add_argument("--share", type=float, default=0.3, help="share of tokens in the banks (default 0.3)")
    add_integers(
        parser,
        ("images", 10582, "images that the banks are made from"),
        ("cells", 196, "tokens of an image"),
        ("width", 384, "channels of the backbone"),
        ("levels", 3, "patch sizes"),
        ("rounds", 5, "times that each way is measured"),
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command and print its report, which is returned too."""
    options = parse(arguments)
    before = machine("torch")
    rounds = measure(options)
    medians = {name: median(figures[name] for figures in rounds) for name in rounds[0]}
    waited = medians["begin_banks"] + medians["checkpoints"]
    return give(
        {
            "machine": before,
            "settings": vars(options),
            "seconds": medians,
            "rounds": rounds,
            "waited_times_less": medians["everything_in_one_file"] / waited,
        }
    )


if __name__ == "__main__":
    main()
