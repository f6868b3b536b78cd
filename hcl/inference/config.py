"""Settings of the model that the commands on photographs share, and how they open it."""

from dataclasses import dataclass, field

from hcl.bounds import require_at_least
from hcl.distributed import DeviceName, World
from hcl.inference.segmenter import Segmenter
from hcl.models.head_files import Branch
from hcl.models.recorded_backbone import BackboneOverride
from hcl.precision import Precision


@dataclass(kw_only=True)
class InferenceConfig:
    """Settings that the commands on photographs share.

    Args:
        checkpoint: checkpoint of a trained head: of this program, a published one, or a folder in Hugging
            Face's format. Checkpoints of this program record the backbone, the head's shape and the share of
            the attention that is foreground; the page on checkpoints says what the others lack.
        backbone: settings of the backbone that the checkpoint lacks, or that differ from it.
        branch: which head of the checkpoint: "momentum" is the moving average, "online" the one that the
            optimiser trained.
        heads: number of attention heads of the checkpoint's head, if the checkpoint does not record it:
            published ones do not, and have 12.
        size: working size: photographs are resized to an area of about size x size pixels and keep their
            shape.
        batch_size: photographs per batch; at most three batches are in memory, and with a CRF another two
            batches and one photograph for each of its workers.
        threads: number of threads that read and write files.
        device: device to compute on; auto takes a CUDA GPU if there is one.
        precision: precision of the backbone and the head; bf16 is worthwhile on GPUs, and on CPUs with bf16
            instructions; fp8 is bf16 with the backbone's linear layers in FP8, on NVIDIA GPUs of compute
            capability 8.9 or more.
    """

    checkpoint: str
    backbone: BackboneOverride = field(default_factory=BackboneOverride)
    branch: Branch = "momentum"
    heads: int | None = None
    size: int = 448
    batch_size: int = 4
    threads: int = 2
    device: DeviceName = "auto"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        require_at_least(1, self, "heads", "size", "batch_size", "threads")


def open_segmenter(config: InferenceConfig, world: World) -> Segmenter:
    """Open the model that the configuration names, on this rank's device.

    Raises:
        FileNotFoundError, ValueError: as `Segmenter.open`.
    """
    return Segmenter.open(
        config.checkpoint,
        backbone=config.backbone.name,
        weights=config.backbone.weights,
        patch_sizes=config.backbone.patch_sizes,
        branch=config.branch,
        heads=config.heads,
        size=config.size,
        device=world.device,
        precision=config.precision,
    )
