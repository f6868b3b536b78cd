"""Writing a trained model in the requested forms; programs are compared with the model first."""

from collections.abc import Callable, Iterator
from pathlib import Path

from torch.export import ExportedProgram

from hcl.clustering.mogo import ClusteringConfig
from hcl.export.agreement import compare, require_agreement
from hcl.export.config import ExportConfig
from hcl.export.programs import Program, open_onnx, open_pt2, require_onnx, to_onnx, to_pt2, trace
from hcl.files import written_whole
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.component_model import ComponentModel
from hcl.models.head_files import read_head_checkpoint
from hcl.models.trained_head import trained_head

PROGRAMS: dict[str, tuple[Callable[[ExportedProgram], bytes], Callable[[bytes], Program]]] = {
    "pt2": (to_pt2, open_pt2),
    "onnx": (to_onnx, open_onnx),
}
"""By file extension: how a program is written, and how it is loaded."""


def export(config: ExportConfig) -> Iterator[str]:
    """Write every form; yield a line on each: what it is and, for a program, how far it is from the model.

    Raises:
        ValueError: the head does not fit the backbone or was trained on another one, the images are too
            small, or a program differs from the model by more than the tolerance.
        FileNotFoundError, CheckpointError, DownloadError: weights are missing or belong to another model.
        ModuleNotFoundError: a form needs a package that is not installed.
    """
    if "onnx" in config.forms:
        require_onnx()
    model, backbone = open_model(config)
    if chosen := [ending for ending in PROGRAMS if ending in config.forms]:
        program = trace(model, config.frame)
        for ending in chosen:
            yield _write_program(ending, program, model, config)
    if "hub" in config.forms:
        yield _write_pretrained(model, backbone, config)


def open_model(config: ExportConfig) -> tuple[ComponentModel, BackboneConfig]:
    """Load the model of a configuration on the CPU; return it and the settings of its backbone."""
    read = read_head_checkpoint(config.checkpoint)
    trained = trained_head(
        read, config.checkpoint, config.branch, backbone=config.backbone, heads=config.heads
    )
    keep_mass = config.keep_mass or trained.keep_mass or ClusteringConfig.keep_mass
    return ComponentModel(build_backbone(trained.backbone), trained.head, keep_mass), trained.backbone


def _write_program(ending: str, traced: ExportedProgram, model: ComponentModel, config: ExportConfig) -> str:
    path = Path(config.output) / f"components.{ending}"
    write, run = PROGRAMS[ending]
    content = write(traced)
    agreement = compare(run(content), model, config.frame)
    require_agreement(str(path), agreement, config.tolerance)
    with written_whole(path) as file:
        file.write(content)
    height, width = config.frame
    return f"{path}: images (batch, 3, {height}, {width}), {len(content) / 1e6:.1f} MB; {agreement}"


def _write_pretrained(model: ComponentModel, backbone: BackboneConfig, config: ExportConfig) -> str:
    try:
        from hcl.models.pretrained import PretrainedSegHead
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"the Hub's format needs the package {missing.name}, which is not installed: "
            "pip install '.[hub]' in the project's folder, or leave out hub from --forms"
        ) from missing
    levels = list(model.backbone.patch_sizes)
    head = PretrainedSegHead.of(model.head, backbone.name, levels, config.branch, model.keep_mass)
    head.save_pretrained(config.output)
    return f"{config.output}: the head as model.safetensors and config.json; load it with --checkpoint"
