"""Everything that a training run can be told."""

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
        weight_decay: on every parameter.
        milestones: epochs from which the learning rate is `gamma` times what it was.
        gamma: that factor.
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
        output: folder of the run: checkpoint.pt and earlier ones, best.pt, log.jsonl, curves.
        epochs: passes over the training split.
        batch_size: images in one optimiser step, all ranks and micro-batches together.
        accumulation: micro-batches to a step; more need less memory and change no result.
        seed: of everything that is drawn.
        deterministic: have torch choose reproducible algorithms, slower on a GPU; a CPU computes so anyway.
        device: where to train; auto takes a CUDA GPU if there is one.
        precision: of the forward pass: fp32, bf16, or fp8, which is bf16 with the frozen backbone's linear
            layers in FP8 and needs an NVIDIA GPU of compute capability 8.9 or more.
        compile: torch.compile blocks and heads; "max-autotune" tries kernels out, which takes minutes.
        cuda_graphs: on a GPU, replay the frozen backbone's pass as one CUDA graph from its second time on,
            and on a single one the whole step.
        log_every: steps between records of the losses.
        checkpoint_every: steps between checkpoints within an epoch; 0 saves at the end of each epoch only.
        checkpoints_kept: how many of the last checkpoints to keep; best.pt, of the epoch of least mean loss,
            comes on top.
        on_non_finite: when a loss or gradient is NaN or infinite, stop with a dump of the step, or skip its
            update and count it. It never reaches the weights.
        threads: of the data pipeline.
        keep_images: whether all training images are decoded once and stay in the memory of every rank's
            device; "auto": where they fit into a quarter of what is free.
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
"""Settings that a resumed run may have otherwise than the run that it continues."""


def config_from(settings: dict[str, Any], path: Path) -> TrainConfig:
    """The configuration that a checkpoint holds; a setting that is younger than the file has its default.

    Args:
        settings: nested dicts, as `dataclasses.asdict` gives them.
        path: where they come from, for errors.

    Raises:
        CheckpointError: they are no settings of this program.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig)
    try:
        return TrainConfig(**vars(parser.instantiate(parser.parse_object(settings))))
    except (ArgumentError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds settings that this program does not know: {error}") from error
