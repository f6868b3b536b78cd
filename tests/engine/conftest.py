"""The small training of the golden vectors, and a training set small enough to train on in seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hcl.clustering.mogo import Centroids, ClusteringConfig, MoGoClustering
from hcl.data.scenes import write_scenes
from hcl.engine.step import LossConfig, TrainingStep
from tests.engine.support import ALONE, GoldenTraining, golden_model


@pytest.fixture
def golden_training(golden, golden_pattern) -> Callable[..., GoldenTraining]:
    """Makes the training of `train_steps` in a dtype."""
    vectors, backbone = golden("train_steps"), golden("pm_vit_p16")

    def make(dtype: torch.dtype = torch.float32) -> GoldenTraining:
        model = golden_model(vectors, backbone).to(dtype)
        optimizer = torch.optim.AdamW(
            model.online.parameters(), lr=float(vectors["lr"]), weight_decay=float(vectors["weight_decay"])
        )
        clustering = MoGoClustering(ClusteringConfig(), seed=7, ranks=ALONE)
        clustering.centroids = Centroids(
            *(torch.from_numpy(vectors[f"centroids_{side}_raw"]).to(dtype) for side in ("fg", "bg"))
        )
        loss = LossConfig(float(vectors["temperature"]), float(vectors["momentum"]))
        phase = float(vectors["phase"])

        def views(step: int) -> tuple[torch.Tensor, torch.Tensor]:
            first = golden_pattern(2, 224, phase + 0.01 * step)
            return first.to(dtype), golden_pattern(2, 224, phase + 0.02 * step + 0.3).to(dtype)

        step = TrainingStep(model, optimizer, clustering, loss, world=ALONE)
        return GoldenTraining(vectors, model, step, views)

    return make


@pytest.fixture(scope="session")
def scenes_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "scenes"
    write_scenes(root, train=12, val=4, size=96, seed=7)
    return root


@pytest.fixture
def tiny_settings(scenes_root, tmp_path) -> dict:
    """Command-line settings of a run of 3 epochs of 3 steps, by dotted name."""
    return {
        "output": str(tmp_path / "run"),
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
