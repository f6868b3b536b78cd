"""Ranks give the numbers of one process, on numbers of images that they cannot share out evenly."""

import json
from pathlib import Path

import pytest

from hcl.commands import evaluate
from hcl.data.scenes import write_scenes
from hcl.distributed import connect
from tests.evaluation.conftest import QUICK
from tests.ranks import on_ranks


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


def score_all(commands: list[list[str]]) -> None:
    """What every rank does: it takes longer to begin than to score."""
    with connect("cpu") as world:
        for arguments in commands:
            evaluate.score(evaluate.parse(arguments), world)


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
    printed = on_ranks(ranks, score_all, together)
    for count in images:
        for protocol in commands(command, tmp_path):
            one, many = (numbers(tmp_path / f"{count} {how}" / protocol) for how in ("alone", "together"))
            assert len(one) > 0
            assert many == pytest.approx(one, abs=1e-9), protocol
            assert f"\n{printed}".count(f"\n{protocol} of scenes-val ({count} images)") == 1
