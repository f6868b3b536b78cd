"""SegHeads in the format of Hugging Face's Hub: model.safetensors, and config.json beside it."""

from pathlib import Path
from typing import Any, Self

from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from safetensors.torch import save

from hcl.files import written_whole
from hcl.models.head_files import PRETRAINED_WEIGHTS, Branch, read_head_checkpoint, seg_head_of
from hcl.models.seg_head import SegHead, SegHeadConfig
from hcl.models.trained_head import recorded_keep_mass
from hcl.models.weights import CheckpointError

CARD = """---
{{ card_data }}
---

# A SegHead of HCL

It turns the tokens of PM-ViT (a frozen transformer at several patch sizes) into component tokens: features
for unsupervised semantic segmentation, similar where parts of photographs belong together. config.json names
its backbone, whose weights come from their authors.

```python
from hcl.models.pretrained import PretrainedSegHead

head = PretrainedSegHead.from_pretrained("this repository, or a copy of it")
```

The method: {{ paper_url }}
"""


class PretrainedSegHead(
    SegHead,
    PyTorchModelHubMixin,
    library_name="hcl-segmentation",
    pipeline_tag="image-segmentation",
    tags=["unsupervised-semantic-segmentation"],
    paper_url="https://www.sciencedirect.com/science/article/pii/S0031320325003735",
    model_card_template=CARD,
):
    """A SegHead that knows the backbone it was trained on, with ``save_pretrained`` and ``from_pretrained``.

    Args:
        in_features: channels (L + 1)·D of the concatenated levels.
        shape: shape of the head.
        backbone: name of the backbone, one of `hcl.models.backbones.BACKBONES`.
        patch_sizes: patch sizes of the levels in pixels, finest first.
        branch: whether these are the weights of the moving average or those that the optimiser trained.
        keep_mass: share of the attention that is foreground; None if it is not known.
    """

    def __init__(
        self,
        in_features: int,
        shape: SegHeadConfig,
        backbone: str,
        patch_sizes: list[int],
        branch: Branch = "momentum",
        keep_mass: float | None = None,
    ) -> None:
        super().__init__(in_features, shape)
        self.backbone = backbone
        self.patch_sizes = patch_sizes
        self.branch = branch
        self.keep_mass = keep_mass

    @classmethod
    def of(
        cls,
        head: SegHead,
        backbone: str,
        patch_sizes: list[int],
        branch: Branch,
        keep_mass: float | None = None,
    ) -> Self:
        """Wrap a head, sharing its weights, so that it can be saved."""
        pretrained = cls(head.in_features, head.config, backbone, patch_sizes, branch, keep_mass)
        pretrained.load_state_dict(head.state_dict(), assign=True)
        return pretrained.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        with written_whole(save_directory / PRETRAINED_WEIGHTS) as file:
            file.write(save(dict(self.state_dict()), metadata={"format": "pt"}))

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        **written: Any,
    ) -> Self:
        """Read a local folder or one of the Hub, as `hcl.models.weights` does: from safetensors alone.

        Backbone and branch come from config.json (``written``), the shape from the tensors.
        """
        if missing := {"backbone", "patch_sizes"} - written.keys():
            raise CheckpointError(f"{model_id}/config.json lacks {', '.join(sorted(missing))}")
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=["config.json", PRETRAINED_WEIGHTS],
                )
            )
        branch = written.get("branch", "momentum")
        read = read_head_checkpoint(folder)
        head, keep_mass = seg_head_of(read, folder, branch), recorded_keep_mass(read, folder)
        return cls.of(head, written["backbone"], written["patch_sizes"], branch, keep_mass).to(map_location)
