"""Settings of an export."""

from dataclasses import dataclass, field
from typing import Literal

from hcl.bounds import require_above_zero, require_at_least, require_share
from hcl.models.head_files import Branch
from hcl.models.recorded_backbone import BackboneOverride

Form = Literal["pt2", "onnx", "hub"]


@dataclass(kw_only=True)
class ExportConfig:
    """Export of a trained model.

    Args:
        checkpoint: checkpoint of a trained head: of this program, a published one, or a folder in the Hub's
            format.
        output: folder for components.pt2, components.onnx, model.safetensors and config.json.
        backbone: the frozen transformer that the head was trained on, where it differs from what the
            checkpoint records.
        branch: which head of the checkpoint: "momentum" is the moving average, "online" the one that the
            optimiser trained.
        heads: number of attention heads of the head's block, if the checkpoint does not record it: published
            ones do not, and have 12.
        forms: formats to write: "pt2" for torch.export, "onnx" for ONNX, "hub" for Hugging Face's Hub.
        size: height and width in pixels of the images that the programs take; the batch size is free.
        keep_mass: share of the attention that the programs take as foreground; by default the one that the
            checkpoint records, or else the published one, 0.7.
        tolerance: greatest allowed difference between a program's tokens or attention and the model's.
    """

    checkpoint: str
    output: str = "runs/export"
    backbone: BackboneOverride = field(default_factory=BackboneOverride)
    branch: Branch = "momentum"
    heads: int | None = None
    forms: list[Form] = field(default_factory=lambda: ["pt2", "onnx", "hub"])
    size: list[int] = field(default_factory=lambda: [448, 448])
    keep_mass: float | None = None
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(
                f"size is {self.size}; it must be height and width in pixels, such as [448, 448]"
            )
        if not self.forms:
            raise ValueError("forms is empty; name at least one of pt2, onnx, hub")
        require_at_least(1, self, "heads")
        require_share(self, "keep_mass")
        require_above_zero(self, "tolerance")

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.size
        return height, width
