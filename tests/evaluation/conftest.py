"""Three small labelled scenes, a small backbone, and what stands in for a pipeline."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hcl.data.scenes import write_scenes
from hcl.evaluation.tokens import TokenExtractor, untrained_head
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.pm_vit import PMViT
from hcl.models.seg_head import SegHeadConfig

SMALL_HEAD = SegHeadConfig(width=24, hidden=8, projection_dim=4, heads=12)
QUICK = {
    "overcluster": ["--label_resolution=16", "--seeds=2", "--restarts=1", "--iterations=5"],
    "cluster": ["--label_resolution=16", "--seeds=2", "--restarts=2", "--iterations=5"],
    "linear-probe": ["--epochs=3", "--milestones=[2]"],
    "linear": [],
    "foreground": ["--label_resolution=16"],
    "retrieval": ["--neighbours=3", "--memory_size=20"],
    "fully-unsupervised": [
        *("--label_resolution=16", "--extraction_clusters=8", "--community_clusters=5", "--seeds=2"),
        *("--restarts=1", "--iterations=5"),
    ],
}
"""Settings with which each protocol takes a second on the scenes."""


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root, train=4, val=3, size=64, seed=1)
    return root


@pytest.fixture(scope="session")
def backbone() -> PMViT:
    return build_backbone(BackboneConfig("tiny"))


@pytest.fixture
def extractor(backbone) -> TokenExtractor:
    head = untrained_head(backbone, SMALL_HEAD, seed=3)
    return TokenExtractor(backbone, "head", head, device=torch.device("cpu"))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32))


@pytest.fixture
def command(scenes, tmp_path) -> list[str]:
    """The arguments that every subcommand needs, for a run of a second."""
    return [
        *("--data.kind", "scenes", "--data.root", str(scenes), "--data.split", "val"),
        *("--backbone.name", "tiny", "--head.width", "24", "--head.hidden", "8"),
        *("--output", str(tmp_path / "out"), "--device", "cpu", "--size", "64", "--batch_size", "2"),
    ]
