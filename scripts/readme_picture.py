"""Draw the README's picture: generated scenes, with a head's object components below each.

The head in the README: train.py --config=configs/quickstart.yaml --backbone.name=dinov2_vits14
--precision=bf16 --output=runs/scenes
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from hcl.data.dataset import DataConfig, open_dataset
from hcl.figures.segments import overlay
from hcl.files import written_whole
from hcl.inference.enlarging import labels_at
from hcl.inference.labelling import clusters
from hcl.inference.segmenter import Segmenter

SIDE, GAP, COLOURS = 224, 8, 256


def main(arguments: list[str] | None = None) -> int:
    """Draw the picture; returns the exit status."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="scripts/readme_picture.py", description=__doc__
    )
    parser.add_argument(
        "--checkpoint", default="runs/scenes/checkpoint.pt", help="checkpoint of a head trained on scenes"
    )
    parser.add_argument("--weights", help="weights of the backbone, if not those that the checkpoint names")
    parser.add_argument("--scenes", default="data/scenes", help="root of the generated scenes")
    parser.add_argument("--images", type=int, default=5, help="how many scenes")
    parser.add_argument("--clusters", type=int, default=16, help="components to merge the clusters to")
    parser.add_argument("--output", default="docs/images/components.png", help="the picture to write")
    options = parser.parse_args(arguments)
    segmenter = Segmenter.open(options.checkpoint, weights=options.weights, size=SIDE, device="cpu")
    labels = clusters(segmenter, options.clusters)
    samples = open_dataset(DataConfig("scenes", options.scenes, "val")).samples
    chosen = np.linspace(0, len(samples) - 1, options.images).round().astype(int)
    sheet = Image.new("RGB", (options.images * (SIDE + GAP) - GAP, 2 * SIDE + GAP), "white")
    for column, sample in enumerate(samples[index] for index in chosen):
        with Image.open(sample.image) as file:
            scene = file.convert("RGB").resize((SIDE, SIDE))
        found = labels_at(labels.scores(segmenter(scene)), (SIDE, SIDE)).numpy()
        sheet.paste(scene, (column * (SIDE + GAP), 0))
        sheet.paste(overlay(scene, found, labels.colours), (column * (SIDE + GAP), SIDE + GAP))
    with written_whole(Path(options.output)) as file:
        sheet.quantize(COLOURS).save(file, format="PNG", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
