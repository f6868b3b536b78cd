"""A head's backbone is its checkpoint's: taken from it in every form, and never contradicted in silence."""

import pytest

from hcl.models.backbones import BackboneConfig
from hcl.models.recorded_backbone import BackboneOverride, chosen_backbone, recorded_backbone
from hcl.models.weights import CheckpointError

RECORDED = {"name": "dinov2_vits14", "weights": None, "patch_sizes": [14, 28]}
OWN = {"config": {"backbone": RECORDED}, "arch": "dinov2_vits14"}


def test_the_settings_of_a_run_are_what_its_checkpoint_records():
    assert recorded_backbone(OWN, "own.pt") == BackboneConfig("dinov2_vits14", None, [14, 28])


def test_an_arch_alone_is_a_name_where_it_is_one_of_this_project():
    assert recorded_backbone({"arch": "dino_vits8"}, "mine.pth.tar") == BackboneConfig("dino_vits8")
    assert recorded_backbone({"arch": "vit_small"}, "hcl.pth.tar") is None
    assert recorded_backbone({}, "hcl.pth.tar") is None


def test_what_is_recorded_is_taken_but_for_weights_and_levels_that_are_given():
    same = BackboneConfig("dinov2_vits14", None, [14, 28])
    assert chosen_backbone(OWN, "own.pt", BackboneOverride()) == same
    assert chosen_backbone(OWN, "own.pt", BackboneOverride("dinov2_vits14")) == same
    moved = BackboneOverride(weights="moved.pth", patch_sizes=[14, 42])
    assert chosen_backbone(OWN, "own.pt", moved) == BackboneConfig("dinov2_vits14", "moved.pth", [14, 42])


@pytest.mark.parametrize("checkpoint", [OWN, {"arch": "dinov2_vits14"}])
def test_another_name_than_the_recorded_one_is_refused(checkpoint):
    with pytest.raises(ValueError, match=r"own\.pt was trained on .*dinov2_vits14, not on dino_vits16"):
        chosen_backbone(checkpoint, "own.pt", BackboneOverride("dino_vits16"))


def test_a_checkpoint_that_records_nothing_needs_a_name():
    assert chosen_backbone({"arch": "vit_small"}, "h", BackboneOverride("tiny")) == BackboneConfig("tiny")
    with pytest.raises(ValueError, match="does not record which backbone"):
        chosen_backbone({"arch": "vit_small"}, "hcl.pth.tar", BackboneOverride())


def test_without_a_checkpoint_the_usual_backbone_is_taken():
    assert BackboneOverride().without_checkpoint() == BackboneConfig()
    assert BackboneOverride("tiny", "own.pth").without_checkpoint() == BackboneConfig("tiny", "own.pth")


@pytest.mark.parametrize(
    "told",
    [
        "dino_vits16",
        {"name": "resnet50"},
        {"name": ["tiny"]},
        {"name": "tiny", "width": 3},
        {"name": "tiny", "weights": 5},
        {"name": "tiny", "patch_sizes": [16, "32"]},
    ],
)
def test_what_is_no_backbone_is_refused(told):
    with pytest.raises(CheckpointError, match=r"own\.pt does not record a valid backbone"):
        recorded_backbone({"config": {"backbone": told}}, "own.pt")


def test_an_unknown_name_is_refused_at_once():
    with pytest.raises(ValueError, match="backbone 'resnet50' is not known"):
        BackboneOverride("resnet50")


def test_weights_that_are_given_outweigh_recorded_ones_that_are_still_there(tmp_path):
    (tmp_path / "own.pth").touch()
    recorded = {"config": {"backbone": {**RECORDED, "weights": str(tmp_path / "own.pth")}}}
    assert chosen_backbone(recorded, "own.pt", BackboneOverride()).weights == str(tmp_path / "own.pth")
    assert chosen_backbone(recorded, "own.pt", BackboneOverride(weights="moved.pth")).weights == "moved.pth"
