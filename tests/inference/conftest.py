"""Scenes as photographs, and a checkpoint whose clusters are tokens of theirs."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from hcl.data.dataset import DataConfig
from hcl.data.scenes import write_scenes
from hcl.engine.checkpoint import FORMAT
from hcl.engine.config import TrainConfig
from hcl.evaluation.tokens import untrained_head
from hcl.inference import Segmenter
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.seg_head import SegHeadConfig

CLUSTERS = (10, 14)
SIZE = 64


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root, train=4, val=3, size=72, seed=1)
    return root


@pytest.fixture(scope="session")
def photographs(scenes) -> list[Path]:
    return sorted((scenes / "JPEGImages").glob("*.jpg"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, scenes, photographs) -> Path:
    """As a training leaves it."""
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    config = TrainConfig(
        data=DataConfig("scenes", str(scenes), "train"),
        backbone=BackboneConfig("tiny"),
        head=SegHeadConfig(width=24, hidden=8, projection_dim=4, heads=6),
    )
    heads = [untrained_head(build_backbone(config.backbone), config.head, seed) for seed in (3, 4)]
    state = {
        "format": FORMAT,
        "config": asdict(config),
        "online_seg_head": heads[0].state_dict(),
        "momentum_seg_head": heads[1].state_dict(),
    }
    torch.save(state, path)
    segmenter = Segmenter.open(path, size=SIZE, device="cpu")
    tokens = torch.cat([parts.projections.flatten(0, 1) for parts in segmenter.batch(photographs)])
    chosen = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))]
    foreground, background = chosen[: sum(CLUSTERS)].split(list(CLUSTERS))
    torch.save({**state, "centroids_foreground": foreground, "centroids_background": background}, path)
    return path


@pytest.fixture(scope="session")
def published(tmp_path_factory, checkpoint) -> Path:
    """A published head, and no clusters."""
    state = torch.load(checkpoint, weights_only=True)
    heads = {name: state[name] for name in ("online_seg_head", "momentum_seg_head")}
    path = tmp_path_factory.mktemp("published") / "hcl_pascal_p16.pth.tar"
    torch.save({"arch": "vit_small", "epoch": 10, **heads}, path)
    return path


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory, segmenter) -> Path:
    """The checkpoint's head as ``hcl.export`` writes it for the Hub."""
    pytest.importorskip("huggingface_hub")
    from hcl.models.pretrained import PretrainedSegHead

    path = tmp_path_factory.mktemp("hub")
    model = segmenter.model
    levels = list(model.backbone.patch_sizes)
    PretrainedSegHead.of(model.head, "tiny", levels, "momentum").save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def segmenter(checkpoint) -> Segmenter:
    return Segmenter.open(checkpoint, size=SIZE, device="cpu")
