"""Train HCL on generated scenes, score it before and after, and draw what it sees: ``make demo``."""

import json
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import evaluate
import train
from hcl.clustering.targets import momentum_targets
from hcl.data.dataset import DataConfig, open_dataset
from hcl.engine.checkpoint import load_checkpoint
from hcl.figures.overview import draw_losses, draw_overview
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.hcl import HCL
from hcl.models.seg_head import SegHeadConfig
from kernels.kmeans import nearest_centroid
from pipelines.labelled_images import EvaluationImages

ROOT = Path(__file__).resolve().parents[1]
RUN = Path("runs/demo")
CHECKPOINT = RUN / "checkpoint.pt"
SCENES = Path("data/scenes")
TOKENS = {
    "backbone's own tokens": ["--tokens=backbone"],
    "untrained head": ["--tokens=head"],
    "trained head": ["--tokens=head", f"--checkpoint={CHECKPOINT}"],
}
PICTURES = 6


def main() -> int:
    """Run the demonstration; the exit status is that of the first command that fails."""
    preset = f"--config={ROOT / 'configs/quickstart.yaml'}"
    if status := train.main([preset, f"--output={RUN}", f"--data.root={SCENES}", "--resume"]):
        return status
    rows = []
    for name, choice in TOKENS.items():
        folder = RUN / name.replace(" ", "-").replace("'", "")
        preset = f"--config={ROOT / 'configs/quickstart_overcluster.yaml'}"
        if status := evaluate.main(
            ["overcluster", preset, f"--output={folder}", f"--data.root={SCENES}", *choice]
        ):
            return status
        rows.append((name, json.loads((folder / "metrics.json").read_text())["results"][0]))
    draw_losses(RUN / "log.jsonl", RUN / "losses.png")
    draw_what_it_sees(RUN / "overview.png")
    print_summary(rows)
    return 0


@torch.inference_mode()
def draw_what_it_sees(path: Path) -> None:
    """Draw images of the validation split with their foreground maps and the clusters of their tokens."""
    state = load_checkpoint(CHECKPOINT)
    settings = state["config"]
    backbone = build_backbone(BackboneConfig(**settings["backbone"]))
    model = HCL(backbone, SegHeadConfig(**settings["head"]))
    model.momentum.load_state_dict(state["momentum_seg_head"])
    dataset = open_dataset(DataConfig("scenes", str(SCENES), "val"))
    batch = next(iter(EvaluationImages(dataset, size=224, batch_size=PICTURES)))
    targets = momentum_targets(model, batch.images, settings["clustering"]["keep_mass"])
    banks = (state["centroids_foreground"], state["centroids_background"])
    foreground, background = (nearest_centroid(targets.tokens.flatten(0, 1), bank) for bank in banks)
    member = targets.foreground.flatten()
    clusters = torch.where(member, foreground, background + len(banks[0]))
    side = 224 // backbone.patch_sizes[0]
    maps = (PICTURES, side, side)
    draw_overview(path, batch.images, batch.labels, member.view(maps), clusters.view(maps))


def print_summary(rows: list[tuple[str, dict]]) -> None:
    """Print the scores before and after, and where the pictures are."""
    table = Table(title=f"Overclustering of the scenes, K = {rows[0][1]['clusters']}")
    table.add_column("tokens")
    table.add_column("mIoU", justify="right")
    table.add_column("pixel accuracy", justify="right")
    for name, result in rows:
        table.add_row(name, *(f"{100 * result['mean'][score]:.1f}" for score in ("miou", "pixel_accuracy")))
    console = Console()
    console.print(table)
    console.print("The tiny backbone has random weights: this shows the program at work, no more.")
    console.print(f"pictures: {RUN / 'overview.png'} and {RUN / 'losses.png'}")


if __name__ == "__main__":
    sys.exit(main())
