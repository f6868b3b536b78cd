from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from hcl.models.backbones import BACKBONES, TINY_WEIGHTS, BackboneConfig, build_backbone
from hcl.models.downloads import BACKBONE_FILES
from hcl.models.vit import VisionTransformer
from hcl.models.weights import CheckpointError


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dino_vits16", 21_665_664),
        ("dino_vits8", 21_670_272),
        ("dino_vitb16", 85_798_656),
        ("dino_vitb8", 85_807_872),
        ("dinov2_vits14", 22_056_192),
        ("dinov2_vitb14", 86_579_712),
        ("dinov2_vits14_reg", 22_056_192 + 4 * 384),
        ("dinov2_vitb14_reg", 86_579_712 + 4 * 768),
        ("dinov2_vitl14", 304_367_616),
        ("dinov2_vitl14_reg", 304_367_616 + 4 * 1024),
    ],
)
def test_shapes_are_those_of_the_published_backbones(name, parameters):
    with torch.device("meta"):
        vit = VisionTransformer(BACKBONES[name].vit)
    assert sum(p.numel() for p in vit.parameters()) == parameters


def test_levels_follow_from_the_patch_size():
    levels = {8: (8, 16, 32, 56), 14: (14, 28, 56), 16: (16, 32, 56)}
    assert all(b.patch_sizes == levels[b.vit.patch_size] for b in BACKBONES.values())


def test_positions_are_resized_as_each_backbone_was_trained():
    resized = {name: (b.vit.position_offset, b.vit.antialias) for name, b in BACKBONES.items()}
    assert {name for name, how in resized.items() if how == (0.0, True)} == {
        f"dinov2_vit{size}14_reg" for size in "sbl"
    }
    assert set(resized.values()) == {(0.0, True), (0.1, False)}


def test_every_backbone_but_the_tiny_ones_has_a_file_to_download():
    assert set(BACKBONE_FILES) == set(BACKBONES) - {"tiny", "tiny_random"}
    assert all(remote.url.startswith("https://") for remote in BACKBONE_FILES.values())
    assert len({remote.name for remote in BACKBONE_FILES.values()}) == len(BACKBONE_FILES)


def test_random_weights_are_the_same_every_time_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    first = build_backbone(BackboneConfig("tiny_random")).state_dict()
    torch.manual_seed(2)
    second = build_backbone(BackboneConfig("tiny_random")).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("save", "name"), [(torch.save, "w.pth"), (save_file, "w.safetensors")])
def test_weights_are_read_from_a_file_of_lower_precision(tmp_path, save, name):
    state = VisionTransformer(BACKBONES["tiny"].vit).state_dict()
    halves = {key: tensor.half() for key, tensor in state.items()}
    save({"mask_token": torch.zeros(1, 96), **halves}, tmp_path / name)
    backbone = build_backbone(BackboneConfig("tiny", weights=str(tmp_path / name)))
    loaded = backbone.vit.state_dict()
    assert all(torch.equal(loaded[key], tensor.half().float()) for key, tensor in state.items())
    assert not any(p.requires_grad for p in backbone.parameters())


def test_weights_of_another_width_are_refused_by_key_and_shapes(tmp_path):
    narrow = replace(BACKBONES["tiny"].vit, width=48)
    torch.save(VisionTransformer(narrow).state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(CheckpointError, match=r"narrow\.pth.*cls_token is \(1, 1, 48\).*\(1, 1, 384\)"):
        build_backbone(BackboneConfig("dino_vits16", weights=str(tmp_path / "narrow.pth")))


def test_patch_sizes_can_be_chosen():
    assert build_backbone(BackboneConfig("tiny", patch_sizes=[16, 40])).patch_sizes == (16, 40)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'resnet50' is not known.*dino_vits16.*tiny"):
        BackboneConfig("resnet50")


def test_missing_weights_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere/w\.pth"):
        build_backbone(BackboneConfig("tiny", weights="nowhere/w.pth"))


def test_weights_of_another_backbone_are_told_by_name():
    with pytest.raises(CheckpointError, match=r"does not fit dino_vits16; its shapes are those of tiny or"):
        build_backbone(BackboneConfig("dino_vits16", str(TINY_WEIGHTS)))
