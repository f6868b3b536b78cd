"""The small training of the golden vectors, and a training set small enough to train on in seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hcl.clustering.mogo import Centroids, ClusteringConfig, MoGoClustering
from hcl.engine.step import LossConfig, TrainingStep
from tests.engine.support import ALONE, GoldenTraining, golden_model, tiny_run, write_tiny_scenes


@pytest.fixture
def golden_training(golden, golden_pattern) -> Callable[..., GoldenTraining]:
    """Makes the training of `train_steps` in a dtype."""
    vectors, backbone = golden("train_steps"), golden("pm_vit_p16")

    def make(dtype: torch.dtype = torch.float32) -> GoldenTraining:
        model = golden_model(vectors, backbone).to(dtype)
        optimizer = torch.optim.AdamW(
            model.online.parameters(),
            lr=float(vectors["lr"]),
            weight_decay=float(vectors["weight_decay"]),
            fused=True,
        )
        clustering = MoGoClustering(ClusteringConfig(), seed=7, world=ALONE)
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
    write_tiny_scenes(root)
    return root


@pytest.fixture
def tiny_settings(scenes_root, tmp_path) -> dict:
    """Command-line settings of a run of 3 epochs of 3 steps, by dotted name."""
    return tiny_run(scenes_root, tmp_path / "run")
