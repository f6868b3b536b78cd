"""Pretrain the `tiny` backbone on generated scenes, without labels: ``python scripts/pretrain_tiny.py``."""

import platform
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that `scripts` is found from any folder

from hcl.files import written_whole
from hcl.models.vit import VisionTransformer
from scripts.tiny.pretraining import PretrainConfig, pretrain


def save_weights(vit: VisionTransformer, path: Path, facts: dict[str, Any]) -> None:
    """Write the backbone in half precision, with facts about the pretraining as the file's metadata."""
    halves = {name: tensor.half().contiguous() for name, tensor in vit.state_dict().items()}
    with written_whole(path) as file:
        file.write(save(halves, metadata={name: str(fact) for name, fact in facts.items()}))


def main(arguments: list[str] | None = None) -> int:
    """Pretrain with the given arguments and write the file."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = ArgumentParser(
        allow_abbrev=False, description="Pretrain the tiny backbone on generated scenes, without labels."
    )
    parser.add_class_arguments(PretrainConfig)
    config = PretrainConfig(**vars(parser.parse_args(arguments)))
    torch.set_num_threads(config.threads)
    started, busy = time.perf_counter(), time.process_time()
    vit, record = pretrain(config)
    last = record[-min(50, len(record)) :]
    facts = {
        "command": shlex.join(["python", "scripts/pretrain_tiny.py", *arguments]),
        **asdict(config),
        "wall_seconds": round(time.perf_counter() - started),
        "cpu_seconds": round(time.process_time() - busy),
        "final_losses": {name: round(float(np.mean([step[name] for step in last])), 3) for name in last[0]},
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}",
    }
    facts.pop("output")
    save_weights(vit, Path(config.output), facts)
    print(f"{config.output}: {facts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
