"""What the commands on photographs are told of the model, and how they open it."""

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
        checkpoint: of a trained head: this program's, a published one, or a folder of Hugging Face's form.
            This program's records its backbone, the head's shape and the share of the attention that is
            foreground; what the others leave open is on the page on checkpoints.
        backbone: what is to be otherwise than the checkpoint says.
        branch: which head of the checkpoint: the moving average, "momentum", or the one that the optimiser
            trained, "online".
        heads: attention heads of the checkpoint's head, where it does not tell: published ones do not, and
            have 12.
        size: photographs are looked at with about size x size pixels, in their own shape.
        batch_size: photographs at a time; three times as many are in memory at most, with a CRF another
            two batches and one for every worker of it.
        threads: that read and write files.
        device: where to compute; auto takes a CUDA GPU if there is one.
        precision: of the backbone and the head; bf16 pays on GPUs, and on CPUs with bf16 instructions; fp8 is
            bf16 with the backbone's linear layers in FP8, on NVIDIA GPUs of compute capability 8.9 or more.
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
    """The model that the configuration names, on this rank's device.

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
