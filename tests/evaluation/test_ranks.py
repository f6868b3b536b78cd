"""Ranks give the numbers of one process, on numbers of images that they cannot share out evenly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hcl.commands import evaluate
from hcl.data.scenes import write_scenes
from tests.evaluation.conftest import QUICK

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from hcl.commands import evaluate
from hcl.distributed import connect
with connect("cpu") as world:
    for arguments in json.load(open(sys.argv[1])):
        evaluate.score(evaluate.parse(arguments), world)
"""


def commands(shared: list[str], folder: Path) -> dict[str, list[str]]:
    settings = {
        "overcluster": [*QUICK["overcluster"], "--clusters", "6"],
        "cluster": QUICK["cluster"],
        "foreground": [],
        "fully-unsupervised": QUICK["fully-unsupervised"],
        "retrieval": QUICK["retrieval"],
        "linear-probe": QUICK["linear-probe"],
    }
    return {
        name: [name, *shared, *own, "--output", str(folder / name), "--token_cache", str(folder / "tokens")]
        for name, own in settings.items()
    }


def numbers(folder: Path) -> dict[str, float]:
    """Every score and every IoU of a protocol's results, by name."""
    results = json.loads((folder / "metrics.json").read_text())["results"]
    return {
        f"{result['name']} {kind} {name}": value
        for result in results
        for kind in ("mean", "std", "class_iou")
        for name, value in result.get(kind, {}).items()
    }


def with_images(command: list[str], root: Path, images: int) -> list[str]:
    """The command on as many scenes of its own."""
    write_scenes(root, train=4, val=images, size=64, seed=1)
    place = command.index("--data.root") + 1
    return [*command[:place], str(root), *command[place + 1 :]]


def launch(ranks: int, commands: list[list[str]], folder: Path) -> str:
    """Run all commands in the same ranks, which take longer to start than to score; gives what they print."""
    (folder / "run.py").write_text(SCRIPT)
    (folder / "commands.json").write_text(json.dumps(commands))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    done = subprocess.run(
        [sys.executable, *torchrun, str(folder / "run.py"), str(folder / "commands.json")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize(
    ("ranks", "images"),
    [(2, [3]), pytest.param(4, [6, 3], marks=pytest.mark.slow)],
    ids=["two of 3 images", "four of 6 images, and of 3: one has none"],
)
def test_ranks_give_the_numbers_of_one(command, tmp_path, ranks, images):
    together = []
    for count in images:
        own = with_images(command, tmp_path / f"{count} scenes", count)
        for arguments in commands(own, tmp_path / f"{count} alone").values():
            assert evaluate.main(arguments) == 0
        together += commands(own, tmp_path / f"{count} together").values()
    printed = launch(ranks, together, tmp_path)
    for count in images:
        for protocol in commands(command, tmp_path):
            one, many = (numbers(tmp_path / f"{count} {how}" / protocol) for how in ("alone", "together"))
            assert len(one) > 0
            assert many == pytest.approx(one, abs=1e-9), protocol
            assert f"\n{printed}".count(f"\n{protocol} of scenes-val ({count} images)") == 1
