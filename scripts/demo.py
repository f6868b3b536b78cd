"""Train HCL on generated scenes, score it before and after, and draw what it sees: ``make demo``."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hcl.commands import evaluate, train
from hcl.data.dataset import DataConfig, open_dataset
from hcl.figures.overview import draw_losses, draw_overview
from hcl.inference.enlarging import labels_at
from hcl.inference.labelling import clusters
from hcl.inference.segmenter import Segmenter
from pipelines.labelled_images import EvaluationImages

ROOT = Path(__file__).resolve().parents[1]
RUN = Path("runs/demo")
CHECKPOINT = RUN / "checkpoint.pt"
REPORT = RUN / "report.html"
SCENES = Path("data/scenes")
TOKENS = {
    "random backbone's own": ["--tokens=backbone", "--backbone.name=tiny_random"],
    "backbone's own": ["--tokens=backbone"],
    "untrained head": ["--tokens=head"],
    "trained head": ["--tokens=head", f"--checkpoint={CHECKPOINT}"],
}
BACKBONES = {"random backbone": "tiny_random", "pretrained backbone": "tiny"}
PICTURES, SIDE = 6, 224
COMPONENTS = 12
"""Number of components to which the clusters of both banks are merged for the picture."""


def main() -> int:
    """Run the demonstration; exit with the status of the first command that fails."""
    argparse.ArgumentParser(description=__doc__, epilog="It takes no arguments.").parse_args()
    run(train.main, [preset("quickstart"), f"--output={RUN}", "--resume"])
    overclustering = {
        name: score("overcluster", name, [preset("quickstart_overcluster"), *choice])
        for name, choice in TOKENS.items()
    }
    foreground = {
        name: score("foreground", name, [preset("quickstart_foreground"), f"--backbone.name={backbone}"])
        for name, backbone in BACKBONES.items()
    }
    draw_losses(RUN / "log.jsonl", RUN / "losses.png")
    draw_what_it_sees(RUN / "overview.png")
    run(evaluate.main, ["report", str(RUN), "--data.kind=scenes", "--data.split=val", f"--output={REPORT}"])
    print_summary(overclustering, foreground)
    return 0


def preset(name: str) -> str:
    """Return the option that selects a preset of the project."""
    return f"--config={ROOT / 'configs' / name}.yaml"


def run(command: Callable[[list[str]], int], arguments: list[str]) -> None:
    """Run a command on the scenes; if it fails, exit with its status."""
    if status := command([*arguments, f"--data.root={SCENES}"]):
        raise SystemExit(status)


def score(protocol: str, name: str, settings: list[str]) -> dict[str, Any]:
    """Run a protocol and return the first entry of its results, which are kept in the run's folder."""
    folder = RUN / protocol / name.replace(" ", "-").replace("'", "")
    run(evaluate.main, [protocol, *settings, f"--output={folder}", "--overwrite"])
    result: dict[str, Any] = json.loads((folder / "metrics.json").read_text())["results"][0]
    return result


def draw_what_it_sees(path: Path) -> None:
    """Draw images of the validation split with their foreground maps and their object components."""
    segmenter = Segmenter.open(CHECKPOINT, size=SIDE)
    components = clusters(segmenter, COMPONENTS)
    dataset = open_dataset(DataConfig("scenes", str(SCENES), "val"))
    batch = next(iter(EvaluationImages(dataset, size=SIDE, batch_size=PICTURES)))
    seen = segmenter.batch([sample.image for sample in dataset.samples[:PICTURES]])
    foreground = torch.stack([parts.foreground for parts in seen])
    labels = torch.stack([labels_at(components.scores(parts), (SIDE, SIDE)) for parts in seen])
    draw_overview(path, batch.images, batch.labels, foreground, labels)


def print_summary(overclustering: dict[str, dict[str, Any]], foreground: dict[str, dict[str, Any]]) -> None:
    """Print the scores before and after, and where the pictures are."""
    console = Console()
    first = next(iter(overclustering.values()))
    tokens = Table("tokens", title=f"Overclustering of the scenes, K = {first['clusters']}")
    for column in ("mIoU", "pixel accuracy"):
        tokens.add_column(column, justify="right")
    for name, result in overclustering.items():
        tokens.add_row(name, *(spread(result, key) for key in ("miou", "pixel_accuracy")))
    console.print(tokens)
    maps = Table("attention of", title=f"Foreground maps, {next(iter(foreground.values()))['name']}")
    maps.add_column("Jaccard", justify="right")
    for name, result in foreground.items():
        maps.add_row(name, f"{100 * result['mean']['jaccard']:.1f}")
    console.print(maps)
    console.print(f"± is the standard deviation over {len(first['seeds'])} seeds of k-means")
    console.print(
        f"pictures: {RUN / 'overview.png'} and {RUN / 'losses.png'}; everything on one page: {REPORT}"
    )


def spread(result: dict[str, Any], key: str) -> str:
    """Format mean and deviation of a score over the seeds, in per cent."""
    return f"{100 * result['mean'][key]:.1f} ± {100 * result['std'][key]:.1f}"


if __name__ == "__main__":
    sys.exit(main())
