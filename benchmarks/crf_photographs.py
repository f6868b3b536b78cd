"""Photographs for the benchmarks of the CRF: `python -m benchmarks.crf_photographs FILE.npz --data.kind ...`.

Takes the settings of `evaluate.py linear`, and writes its linear classifier's output for the images of a data
set: `logits` (B, C, h, w) float32 on the grid of the tokens, where they take little space, `images`
(B, 3, S, S) and `labels` (B, S, S) uint8.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hcl.command_line import preset_first, reported
from hcl.distributed import World, choose_device
from hcl.evaluation.framed_images import framed_images
from hcl.evaluation.linear import LinearConfig, open_given
from hcl.evaluation.linear_classifier import grid_logits
from hcl.evaluation.token_store import stored_tokens
from hcl.files import naming
from hcl.settings_parser import SettingsParser
from pipelines.normalise import colours

PROGRAM = "python -m benchmarks.crf_photographs"


@dataclass(kw_only=True)
class PhotographsConfig(LinearConfig):
    """Settings of `evaluate.py linear`, and the file to write.

    Args:
        file: the .npz file to write.
    """

    file: str


@torch.no_grad()
def write(config: PhotographsConfig) -> None:
    """Write the logits, images and labels of all images; `config.data.limit` limits their number.

    Raises:
        ValueError, FileNotFoundError: as `open_given`.
        OSError: the file cannot be written.
    """
    world = World.alone(choose_device(config.device))
    classifier, dataset, extractor = open_given(config, world)
    with stored_tokens(config, dataset, extractor, world) as store:
        logits = [
            grid_logits(classifier, tokens.to(world.device).float(), store.grid).cpu()
            for tokens in store.tokens.split(config.batch_size)
        ]
        every = np.arange(len(dataset))
        images = [colours(batch.images).cpu() for batch in framed_images(dataset, config, every, world)]
        with naming(Path(config.file)):
            np.savez_compressed(
                config.file,
                logits=torch.cat(logits).numpy(),
                images=torch.cat(images).numpy(),
                labels=store.labels.numpy(),
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""

    def run() -> int:
        parser = SettingsParser(prog=PROGRAM, description=__doc__)
        parser.add_argument("--config", action="config", help="name of a preset, or a YAML file")
        parser.add_settings(PhotographsConfig, positional=("file", "the .npz to write"))
        parsed = parser.parse_args(preset_first(sys.argv[1:] if arguments is None else arguments))
        settings = parser.instantiate(parsed)
        settings.pop("config")
        write(PhotographsConfig(**vars(settings)))
        return 0

    return reported(PROGRAM, run)


if __name__ == "__main__":
    sys.exit(main())
