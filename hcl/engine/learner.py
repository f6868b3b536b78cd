"""The learning part of a run: model, optimiser and clusters, and their state as a whole."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hcl.clustering.mogo import Banks, MoGoClustering
from hcl.distributed import World
from hcl.engine.compilation import compile_model
from hcl.engine.config import MAY_CHANGE_ON_RESUME, TrainConfig, config_from
from hcl.engine.replay import replay
from hcl.engine.replayed_step import ReplayedStep
from hcl.engine.step import TrainingStep
from hcl.models.backbones import build_backbone
from hcl.models.digest import digest_of_weights
from hcl.models.hcl import HCL
from hcl.models.number_format import prepare
from hcl.models.pm_vit import PMViT
from hcl.models.weights import load_into
from hcl.nested_settings import changed_settings


class Learner:
    """Builds model, optimiser, clusters and training step from a configuration, on this rank's device.

    Raises:
        ValueError: the ranks have different backbone weights, or one of these parts refuses a setting.
        FileNotFoundError, CheckpointError, DownloadError: weights are missing or of another model.

    Attributes:
        training_step: takes one optimiser step.
        clustering: the token banks and their clusters.
        schedule: learning-rate schedule, one step per epoch.
    """

    def __init__(self, config: TrainConfig, world: World) -> None:
        self.config = config
        self.world = world
        self.model = self._build_model()
        self.optimizer = torch.optim.AdamW(
            self.model.online.parameters(),
            lr=config.optimiser.lr,
            weight_decay=config.optimiser.weight_decay,
            **self._without_the_host,
        )
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(
            self.optimizer, config.optimiser.milestones, config.optimiser.gamma
        )
        self.clustering = MoGoClustering(config.clustering, seed=config.seed, world=world)
        step = TrainingStep(
            self.model,
            self.optimizer,
            self.clustering,
            config.loss,
            world=world,
            precision=config.precision,
            halt=config.on_non_finite == "stop",
        )
        self.training_step = ReplayedStep(step) if config.cuda_graphs else step

    @property
    def _without_the_host(self) -> dict[str, Any]:
        """Settings with which the optimiser can skip an update without the host, and can be replayed."""
        return {"fused": True, "capturable": self.world.device.type == "cuda"}

    def _build_model(self) -> HCL:
        torch.manual_seed(self.config.seed)
        backbone = build_backbone(self.config.backbone)
        self.backbone_digest = self._agreed_digest(backbone)
        model = HCL(backbone, self.config.head).to(self.world.device)
        model.backbone = prepare(model.backbone, self.config.precision, self.world.device)
        compile_model(model, self.config.compile)
        if self.config.cuda_graphs:
            replay(model.backbone)
        return model

    def _agreed_digest(self, backbone: PMViT) -> str:
        digest = digest_of_weights(backbone)
        if len(self.world.union({digest})) > 1:
            raise ValueError(
                f"the ranks have different weights of {self.config.backbone.name}: make all ranks read the "
                "same file"
            )
        return digest

    @property
    def lr(self) -> float:
        """The current learning rate."""
        return self.optimizer.param_groups[0]["lr"]

    def state_dict(self) -> dict[str, Any]:
        """Return what a later process needs besides the banks, under the published program's keys if any."""
        return {
            "config": asdict(self.config),
            "arch": self.config.backbone.name,
            "backbone_digest": self.backbone_digest,
            "online_seg_head": self.model.online.seg_head.state_dict(),
            "momentum_seg_head": self.model.momentum.state_dict(),
            "predictor": self.model.online.predictor.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            **self.clustering.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], path: Path, banks: Banks | None = None) -> None:
        """Restore a state from `state_dict`.

        Args:
            state: state of a run with the same settings, except those that a resumed run may change.
            path: file that it comes from, for error messages.
            banks: this rank's shares of that run's token banks, if it has any.

        Raises:
            ValueError: settings differ (the message lists them), or the backbone's weights do.
            CheckpointError: weights are missing or of another shape.
        """
        saved = asdict(config_from(state["config"], path))
        if differences := changed_settings(saved, asdict(self.config), MAY_CHANGE_ON_RESUME):
            raise ValueError(
                f"{path} belongs to a run with other settings: use those, or choose another --output\n  "
                + "\n  ".join(differences)
            )
        if state.get("backbone_digest", self.backbone_digest) != self.backbone_digest:
            raise ValueError(
                f"{path} belongs to a run with other weights of {self.config.backbone.name}: give those with "
                "--backbone.weights, or choose another --output"
            )
        load_into(self.model.online.seg_head, state["online_seg_head"], path)
        load_into(self.model.momentum, state["momentum_seg_head"], path)
        load_into(self.model.online.predictor, state["predictor"], path)
        groups = [{**group, **self._without_the_host} for group in state["optimizer"]["param_groups"]]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self.schedule.load_state_dict(state["schedule"])
        self.clustering.load_state_dict(state, banks, self.world.device)
