"""Everything that an export can be told."""

from dataclasses import dataclass, field
from typing import Literal

from hcl.bounds import require_above_zero, require_at_least, require_share
from hcl.models.head_files import Branch
from hcl.models.recorded_backbone import BackboneOverride

Form = Literal["pt2", "onnx", "hub"]


@dataclass(kw_only=True)
class ExportConfig:
    """An export.

    Args:
        checkpoint: of a trained head: this program's, a published one, or a folder of the Hub's form.
        output: folder for components.pt2, components.onnx, model.safetensors and config.json.
        backbone: the frozen transformer that the head was trained on, where it is not as the checkpoint says.
        branch: which head of the checkpoint: the moving average, "momentum", or the one that the optimiser
            trained, "online".
        heads: attention heads of the head's block, where the checkpoint does not tell: published ones do not,
            and have 12.
        forms: which to write: "pt2" for torch.export, "onnx" for ONNX, "hub" for Hugging Face's Hub.
        size: height and width in pixels of the images that the programs take; the batch is free.
        keep_mass: share of the attention that the programs call foreground; by default the checkpoint's, and
            the published one, 0.7, where it records none.
        tolerance: greatest difference between a program's tokens or attention and the model's.
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
