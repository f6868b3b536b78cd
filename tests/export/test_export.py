"""Programs and folders as they are exported: what they compute, what reads them, and what is refused."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from hcl.evaluation.tokens import untrained_head
from hcl.export.__main__ import main
from hcl.export.agreement import Agreement, compare, require_agreement
from hcl.export.config import ExportConfig
from hcl.export.programs import open_onnx, open_pt2, to_onnx, to_pt2, trace
from hcl.export.write import open_model
from hcl.inference import open_trained
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.component_model import ComponentModel
from hcl.models.pm_vit import PMViT
from hcl.models.pretrained import PretrainedSegHead
from hcl.models.recorded_backbone import BackboneOverride
from hcl.models.seg_head import SegHead, SegHeadConfig
from hcl.models.trained_head import recorded_keep_mass
from hcl.models.vit import VisionTransformer, ViTConfig
from hcl.models.weights import CheckpointError

SMALL = SegHeadConfig(width=24, hidden=8, projection_dim=4, heads=4)
DINO = ViTConfig(patch_size=8, width=12, depth=2, heads=3, table=4)
DINOV2 = ViTConfig(patch_size=7, width=12, depth=2, heads=3, table=5, layer_scale=True)
REGISTERS = ViTConfig(
    patch_size=7,
    width=12,
    depth=2,
    heads=3,
    table=5,
    layer_scale=True,
    registers=4,
    position_offset=0.0,
    antialias=True,
)


def model_of(shape: ViTConfig, kind: str = "block") -> ComponentModel:
    """A model of random weights that spread its attention unevenly."""
    vit = VisionTransformer(shape)
    generator = torch.Generator().manual_seed(0)
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    backbone = PMViT(vit, [shape.patch_size, 2 * shape.patch_size, 4 * shape.patch_size])
    torch.manual_seed(0)
    head = SegHead(4 * shape.width, SegHeadConfig(kind, width=24, hidden=8, projection_dim=4, heads=4))
    return ComponentModel(backbone, head)


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [(DINO, "block", (64, 64)), (DINOV2, "mlp", (56, 70)), (REGISTERS, "block", (61, 66))],
    ids=["dino", "dinov2-mlp", "registers-odd-size"],
)
def test_programs_compute_what_the_model_computes(shape, kind, size):
    model = model_of(shape, kind)
    program = trace(model, size)
    for run in (open_pt2(to_pt2(program)), open_onnx(to_onnx(program))):
        agreement = compare(run, model, size)
        assert agreement.tokens < 1e-4
        assert agreement.attention < 1e-6
        assert agreement.flipped == 0
        assert agreement.cells == 4 * (size[0] // shape.patch_size) * (size[1] // shape.patch_size)


def test_a_program_that_differs_is_refused_with_how_far():
    with pytest.raises(ValueError, match=r"m\.onnx was not written.*2\.0e-03 in tokens.*tolerance is 0\.001"):
        require_agreement("m.onnx", Agreement(2e-3, 0.0, 0, 100), 1e-3)
    with pytest.raises(ValueError, match="2 of 100 foreground cells"):
        require_agreement("m.onnx", Agreement(0.0, 0.0, 2, 100), 1e-3)
    with pytest.raises(ValueError, match="nan in tokens"):
        require_agreement("m.onnx", Agreement(float("nan"), 0.0, 0, 100), 1e-3)
    require_agreement("m.onnx", Agreement(1e-4, 1e-4, 1, 100), 1e-3)


@pytest.fixture
def checkpoint(tmp_path) -> str:
    backbone = build_backbone(BackboneConfig("tiny"))
    heads = [untrained_head(backbone, SMALL, seed).state_dict() for seed in (1, 2)]
    path = tmp_path / "checkpoint.pt"
    settings = {"head": {"heads": 4}}
    both = {"momentum_seg_head": heads[0], "online_seg_head": heads[1]}
    torch.save({"config": settings, **both}, path)
    return str(path)


def test_an_export_leaves_programs_that_run_without_this_project(checkpoint, tmp_path, capsys):
    folder = tmp_path / "out"
    arguments = ["--checkpoint", checkpoint, "--backbone.name", "tiny", "--output", str(folder)]
    assert main([*arguments, "--size", "[64, 80]", "--forms", "[pt2, onnx]"]) == 0
    printed = capsys.readouterr().out
    assert "components.pt2: images (batch, 3, 64, 80)" in printed
    assert "components.onnx: images (batch, 3, 64, 80)" in printed
    assert printed.count("max error") == 2
    assert sorted(path.name for path in folder.iterdir()) == ["components.onnx", "components.pt2"]
    session = onnxruntime.InferenceSession(folder / "components.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, 64, 80]
    script = (
        "import torch, sys; m = torch.export.load(sys.argv[1]).module(); "
        "print([list(x.shape) for x in m(torch.zeros(5, 3, 64, 80))], 'hcl' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "components.pt2")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[[5, 20, 24], [5, 3, 4, 5], [5, 4, 5]] False"
    tokens, attention, foreground = session.run(None, {"images": np.zeros((2, 3, 64, 80), np.float32)})
    assert (tokens.shape, attention.shape, foreground.shape) == ((2, 20, 24), (2, 3, 4, 5), (2, 4, 5))
    assert foreground.dtype == bool


def test_a_head_in_the_hubs_form_says_all_that_reading_it_needs(checkpoint, tmp_path):
    arguments = ["--checkpoint", checkpoint, "--backbone.name", "tiny", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--forms", "[hub]", "--branch", "online"]) == 0
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings == {
        "in_features": 384,
        "shape": {"kind": "block", "width": 24, "hidden": 8, "projection_dim": 4, "heads": 4},
        "backbone": "tiny",
        "patch_sizes": [16, 32, 56],
        "branch": "online",
        "keep_mass": 0.7,
    }


def test_the_backbone_is_the_one_that_the_checkpoint_records(checkpoint, tmp_path, capsys):
    state = torch.load(checkpoint, weights_only=True)
    state["config"]["backbone"] = {"name": "tiny", "weights": None, "patch_sizes": [16, 32, 48]}
    torch.save(state, checkpoint)
    arguments = ["--checkpoint", checkpoint, "--output", str(tmp_path / "out"), "--forms", "[hub]"]
    assert main(arguments) == 0
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (settings["backbone"], settings["patch_sizes"]) == ("tiny", [16, 32, 48])
    assert main([*arguments, "--backbone.name", "tiny_random"]) == 2
    assert "was trained on the backbone tiny, not on tiny_random" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recorded", "asked", "keep_mass"),
    [(None, None, 0.7), ({"keep_mass": 0.4}, None, 0.4), ({"keep_mass": 0.4}, 0.9, 0.9)],
)
def test_the_share_that_is_foreground_is_the_one_that_the_checkpoint_records(
    checkpoint, recorded, asked, keep_mass
):
    state = torch.load(checkpoint, weights_only=True)
    state["config"]["clustering"] = recorded
    torch.save(state, checkpoint)
    config = ExportConfig(checkpoint=checkpoint, backbone=BackboneOverride("tiny"), keep_mass=asked)
    model, _ = open_model(config)
    assert model.keep_mass == keep_mass


def test_the_hubs_form_keeps_the_share_that_is_foreground(checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    state["config"]["clustering"] = {"keep_mass": 0.4}
    torch.save(state, checkpoint)
    arguments = ["--checkpoint", checkpoint, "--backbone.name", "tiny", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--forms", "[hub]"]) == 0
    for name in ("out", "out/model.safetensors"):
        assert open_trained(tmp_path / name).keep_mass == 0.4
    model, _ = open_model(ExportConfig(checkpoint=str(tmp_path / "out")))
    assert model.keep_mass == 0.4
    assert PretrainedSegHead.from_pretrained(tmp_path / "out").keep_mass == 0.4


@pytest.mark.parametrize("recorded", [{"keep_mass": 7}, {"keep_mass": "most"}, {}, [0.7]])
def test_a_recorded_share_that_is_none_is_refused(checkpoint, recorded):
    with pytest.raises(
        CheckpointError,
        match=r"checkpoint\.pt records .* as keep_mass, which is not a share of the attention",
    ):
        recorded_keep_mass({"config": {"clustering": recorded}}, checkpoint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep_mass", "1.5"], "keep_mass is 1.5; it must lie in (0, 1]"),
        (["--keep_mass", "0"], "keep_mass is 0.0; it must lie in (0, 1]"),
        (["--size", "[64]"], "size is [64]; it must be height and width"),
        (
            ["--size", "[30, 64]"],
            "images of 30x64 pixels are smaller than a patch of the coarsest level, 56x56",
        ),
        (["--forms", "[]"], "forms is empty"),
        (["--tolerance", "1e-30"], "components.onnx was not written"),
        (["--backbone.patch_sizes", "[16, 32]"], "the head takes 384 channels, but the backbone gives 288"),
        (["--checkpoint", "missing.pt"], "there is no checkpoint file missing.pt"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line(checkpoint, tmp_path, capsys, arguments, message):
    given = ["--checkpoint", checkpoint, "--backbone.name", "tiny", "--output", str(tmp_path / "out")]
    assert main([*given, "--size", "[64, 64]", "--forms", "[onnx]", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("form", "package"), [("onnx", "onnxruntime"), ("hub", "huggingface_hub")])
def test_a_form_without_its_package_says_what_to_install(
    checkpoint, tmp_path, capsys, monkeypatch, form, package
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "hcl.models.pretrained", raising=False)
    given = ["--checkpoint", checkpoint, "--backbone.name", "tiny", "--output", str(tmp_path / "out")]
    assert main([*given, "--forms", f"[{form}]"]) == 2
    error = capsys.readouterr().err
    assert f"needs the package {package}, which is not installed: pip install" in error
