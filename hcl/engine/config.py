"""All settings of a training run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser

from hcl.bounds import require_at_least
from hcl.clustering.mogo import ClusteringConfig
from hcl.data.dataset import DataConfig
from hcl.distributed import DeviceName
from hcl.engine.boards import Logger
from hcl.engine.compilation import Compile
from hcl.engine.step import LossConfig
from hcl.models.backbones import BackboneConfig
from hcl.models.seg_head import SegHeadConfig
from hcl.models.weights import CheckpointError
from hcl.precision import Precision
from pipelines.draws import ViewsConfig


@dataclass
class OptimiserConfig:
    """Settings of AdamW and its schedule.

    Args:
        lr: learning rate.
        weight_decay: weight decay of every parameter.
        milestones: numbers of epochs after which the learning rate is multiplied by `gamma`.
        gamma: factor of the learning rate at every milestone.
    """

    lr: float = 1e-4
    weight_decay: float = 0.04
    milestones: list[int] = field(default_factory=lambda: [3])
    gamma: float = 0.1


@dataclass(kw_only=True)
class TrainConfig:
    """A training run; the defaults are the published ones (HCL, section 0).

    Args:
        data: the images.
        output: folder of the run: checkpoint.pt and earlier checkpoints, best.pt, log.jsonl, curves.
        epochs: passes over the training split.
        batch_size: images in one optimiser step, over all ranks and micro-batches.
        accumulation: micro-batches per step; more of them need less memory and do not change the result.
        seed: seed of all random draws.
        deterministic: have torch choose reproducible algorithms, which are slower on a GPU; on a CPU, results
            are reproducible anyway.
        device: where to train; auto takes a CUDA GPU if there is one.
        precision: number format of the forward pass: fp32, bf16, or fp8, which is bf16 with the frozen
            backbone's linear layers in FP8 and needs an NVIDIA GPU of compute capability 8.9 or more.
        compile: compile blocks and heads with torch.compile; "max-autotune" also tries out kernels, which
            takes minutes.
        cuda_graphs: on a GPU, replay the frozen backbone's pass as one CUDA graph from the second time on;
            with a single GPU, replay the whole step.
        log_every: steps between two records of the losses.
        checkpoint_every: steps between checkpoints within an epoch; 0 saves at the end of each epoch only.
        checkpoints_kept: how many of the latest checkpoints to keep; best.pt, of the epoch with the lowest
            mean loss, is kept in addition.
        on_non_finite: what to do when a loss or gradient is NaN or infinite: stop with a dump of the step, or
            skip its update and count it. It never reaches the weights.
        threads: CPU threads of the data pipeline.
        keep_images: whether to decode all training images once and keep them in the memory of every rank's
            device; "auto" does so if they fit into a quarter of the free memory.
        logger: where the curves can be watched: in TensorBoard, or in Weights & Biases ("wandb"), which obeys
            its own environment variables, such as WANDB_MODE=offline. log.jsonl has the figures either way.
        views: how the two training views are drawn.
        backbone: the frozen transformer.
        head: the segmentation head.
        clustering: token bank and clusters.
        loss: temperature and momentum.
        optimiser: AdamW and its schedule.
    """

    data: DataConfig
    output: str = "runs/hcl"
    epochs: int = 10
    batch_size: int = 64
    accumulation: int = 1
    seed: int = 7
    deterministic: bool = False
    device: DeviceName = "auto"
    precision: Precision = "fp32"
    compile: Compile = False
    cuda_graphs: bool = True
    log_every: int = 10
    checkpoint_every: int = 0
    checkpoints_kept: int = 3
    on_non_finite: Literal["stop", "skip"] = "stop"
    threads: int = 2
    keep_images: Literal["auto", "always", "never"] = "never"
    logger: Logger = "tensorboard"
    views: ViewsConfig = field(default_factory=ViewsConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    head: SegHeadConfig = field(default_factory=SegHeadConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        require_at_least(1, self, "epochs", "accumulation", "log_every", "checkpoints_kept", "threads")
        require_at_least(0, self, "seed", "checkpoint_every")


MAY_CHANGE_ON_RESUME = frozenset(
    {
        "output",
        "epochs",
        "accumulation",
        "device",
        "compile",
        "cuda_graphs",
        "deterministic",
        "threads",
        "log_every",
    }
    | {"checkpoint_every", "checkpoints_kept", "on_non_finite", "logger", "data.root", "data.masks"}
    | {"backbone.weights", "clustering.reuse", "keep_images"}
)
"""Settings in which a resumed run may differ from the run that it continues."""


def config_from(settings: dict[str, Any], path: Path) -> TrainConfig:
    """Return a checkpoint's configuration; settings that are newer than the file have their defaults.

    Args:
        settings: nested dicts, as `dataclasses.asdict` returns them.
        path: file that they come from, for error messages.

    Raises:
        CheckpointError: they are not settings of this program.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig)
    try:
        return TrainConfig(**vars(parser.instantiate(parser.parse_object(settings))))
    except (ArgumentError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds settings that this program does not accept: {error}") from error
