"""What the engine's tests share: the golden model, and settings as a command line."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from hcl.clustering.mogo import SIDES
from hcl.data.scenes import write_scenes
from hcl.distributed import World
from hcl.engine.bank_files import BankFiles
from hcl.engine.checkpoint import load_checkpoint
from hcl.engine.log_reader import read_records
from hcl.engine.step import TrainingStep
from hcl.models.hcl import HCL
from hcl.models.pm_vit import PMViT
from hcl.models.seg_head import SegHeadConfig
from hcl.models.vit import VisionTransformer, ViTConfig

ALONE = World.alone(torch.device("cpu"))


class GoldenTraining(NamedTuple):
    """The model at the start of `train_steps`, its step, and the views of each step."""

    vectors: dict[str, np.ndarray]
    model: HCL
    step: TrainingStep
    views: Callable[[int], tuple[torch.Tensor, torch.Tensor]]


def weights(vectors: dict[str, np.ndarray], prefix: str) -> dict[str, torch.Tensor]:
    """The state dict stored under a prefix."""
    return {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in vectors.items()
        if name.startswith(prefix)
    }


def golden_model(vectors: dict[str, np.ndarray], backbone: dict[str, np.ndarray]) -> HCL:
    """The model of `train_steps` at its start, on the backbone of `pm_vit_p16`."""
    dino, head = weights(backbone, "dino."), weights(vectors, "init.online_seg_head.")
    width, depth = dino["norm.weight"].numel(), sum(name.endswith("norm1.weight") for name in dino)
    vit = VisionTransformer(ViTConfig(width=width, depth=depth, heads=int(backbone["num_heads"])))
    vit.load_state_dict(dino)
    projection_dim, hidden = head["projection_head.4.weight"].shape
    config = SegHeadConfig(width=len(head["norm.weight"]), hidden=hidden, projection_dim=projection_dim)
    model = HCL(PMViT(vit, [16, 32, 56]), config)
    for module in (model.online.seg_head, model.momentum):
        module.load_state_dict(head)
    model.online.predictor.load_state_dict(weights(vectors, "init.predictor."))
    return model


def write_tiny_scenes(root: Path) -> None:
    """A training set small enough to train on in seconds."""
    write_scenes(root, train=12, val=4, size=96, seed=7)


def tiny_run(scenes_root: Path, output: Path) -> dict:
    """Command-line settings of a run of 3 epochs of 3 steps, by dotted name."""
    return {
        "output": str(output),
        "epochs": 3,
        "batch_size": 4,
        "log_every": 1,
        "device": "cpu",
        "data.kind": "scenes",
        "data.root": str(scenes_root),
        "data.split": "train",
        "views.size": 64,
        "backbone.name": "tiny",
        "head.width": 24,
        "head.hidden": 16,
        "head.projection_dim": 8,
        "head.heads": 2,
        "clustering.foreground_clusters": 4,
        "clustering.background_clusters": 4,
        "clustering.sample_share": 1.0,
        "optimiser.lr": 1e-3,
        "optimiser.milestones": "[2]",
    }


def arguments(settings: dict) -> list[str]:
    """The settings as a command line."""
    return [f"--{name}={value}" for name, value in settings.items()]


def records(folder: str | Path, *kinds: str) -> list[dict]:
    """What a run has noted, of some kinds or of all."""
    noted = read_records(Path(folder) / "log.jsonl")
    return [record for record in noted if not kinds or record["kind"] in kinds]


def saved_state(folder: str | Path) -> dict:
    """What a run has saved last, without its settings, which hold paths, and with the rows of its banks."""
    state = load_checkpoint(Path(folder) / "checkpoint.pt")
    del state["config"]
    return state | saved_banks(Path(folder), state)


def saved_banks(folder: Path, state: dict) -> dict[str, torch.Tensor]:
    """The rows of the banks that a checkpoint in a folder needs, by ``bank_`` and their side."""
    banks = BankFiles(folder, 1, ALONE).read(state["banks"]) or ()
    return {f"bank_{side}": bank.rows for side, bank in zip(SIDES, banks, strict=False)}


def same(left, right) -> bool:
    """Whether two nested states are equal bit for bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right
