"""Photographs become parts, whatever they come as; what cannot be used is an error that names it."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import hcl
from hcl.inference import Segmenter
from hcl.models.weights import CheckpointError
from kernels.foreground import foreground_mask
from kernels.kmeans import nearest_centroid
from tests.inference.conftest import CLUSTERS, SIZE


def test_parts_lie_on_the_grid_of_patches(segmenter, photographs):
    parts = segmenter(photographs[0])
    assert parts.tokens.shape == (4, 4, 24)
    assert parts.projections.shape == (4, 4, 4)
    torch.testing.assert_close(parts.projections.norm(dim=-1), torch.ones(4, 4))
    assert parts.foreground.shape == (4, 4)
    assert parts.size == (72, 72)
    assert not any(value.is_inference() for value in parts[:4])


def test_clusters_are_the_nearest_centroids_of_each_tokens_bank(segmenter, checkpoint, photographs):
    parts = segmenter(photographs[0])
    state = torch.load(checkpoint, weights_only=True)
    for bank, inside, first in (("foreground", True, 0), ("background", False, CLUSTERS[0])):
        member = parts.foreground == inside
        nearest = nearest_centroid(parts.projections[member], state[f"centroids_{bank}"])
        assert member.any()
        assert torch.equal(parts.clusters[member], nearest + first)


def test_the_attentions_foreground_is_the_trained_share(segmenter, photographs):
    picture = np.array(Image.open(photographs[0]).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    image = torch.from_numpy((picture / 255 - mean) / std).float().permute(2, 0, 1)
    attention = segmenter.extractor(image[None]).attention
    assert torch.equal(segmenter(photographs[0]).foreground, foreground_mask(attention, 0.7)[0])


def test_a_path_an_image_and_an_array_are_the_same_photograph(segmenter, photographs):
    image = Image.open(photographs[0])
    first = segmenter(str(photographs[0]))
    for photograph in (photographs[0], image, np.asarray(image)):
        assert torch.equal(segmenter(photograph).tokens, first.tokens)


def test_a_batch_gives_what_its_photographs_give(segmenter, photographs):
    wide = Image.open(photographs[0]).resize((200, 80))
    mixed = [photographs[0], wide, photographs[1]]
    for together, photograph in zip(segmenter.batch(mixed), mixed, strict=True):
        alone = segmenter(photograph)
        assert together.size == alone.size
        torch.testing.assert_close(together.tokens, alone.tokens, atol=1e-5, rtol=1e-5)
        assert torch.equal(together.clusters, alone.clusters)


def test_a_photograph_is_turned_as_its_camera_says(segmenter, photographs, tmp_path):
    upright = Image.open(photographs[0]).resize((160, 80))
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise by a quarter
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    parts = segmenter(turned)
    assert parts.size == (80, 160)
    assert torch.equal(parts.tokens, segmenter(upright).tokens)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(64, 64, (64, 64)), (2000, 2000, (64, 64)), (480, 1000, (64, 96)), (10, 2000, (64, 912))],
)
def test_the_working_size_keeps_shape_and_area(segmenter, height, width, expected):
    assert segmenter.working_size(height, width) == expected
    assert segmenter.working_size(width, height) == expected[::-1]


def test_all_levels_cover_the_photograph_where_their_patches_fit_together(checkpoint):
    segmenter = Segmenter.open(checkpoint, patch_sizes=[16, 32, 64], size=448, device="cpu")
    assert segmenter.working_size(480, 640) == (384, 512)


def test_a_published_head_has_no_clusters(published, checkpoint, photographs):
    parts = Segmenter.open(published, backbone="tiny", size=SIZE, device="cpu")(photographs[0])
    assert parts.clusters is None
    assert parts.tokens.shape == (4, 4, 24)


def test_a_head_in_the_hubs_form_gives_the_tokens_of_its_checkpoint(pretrained, segmenter, photographs):
    parts = Segmenter.open(pretrained, size=SIZE, device="cpu")(photographs[0])
    expected = segmenter(photographs[0])
    assert torch.equal(parts.tokens, expected.tokens)
    assert torch.equal(parts.foreground, expected.foreground)
    assert parts.clusters is None


def test_a_head_whose_file_does_not_count_its_attention_heads_takes_those_that_it_is_told(
    pretrained, segmenter, photographs, tmp_path
):
    shutil.copy(pretrained / "model.safetensors", tmp_path / "head.safetensors")
    settings = {"backbone": "tiny", "size": SIZE, "device": "cpu"}
    with pytest.raises(CheckpointError, match="does not record how many attention heads"):
        Segmenter.open(tmp_path / "head.safetensors", **settings)
    told = Segmenter.open(tmp_path / "head.safetensors", heads=6, **settings)
    assert torch.equal(told(photographs[0]).tokens, segmenter(photographs[0]).tokens)


def test_a_published_head_needs_the_name_of_its_backbone(published):
    with pytest.raises(ValueError, match=r"hcl_pascal_p16\.pth\.tar does not record which backbone"):
        Segmenter.open(published)


def test_another_backbone_than_the_checkpoints_is_refused(checkpoint):
    assert Segmenter.open(checkpoint, backbone="tiny", size=SIZE, device="cpu").model.centroids is not None
    with pytest.raises(ValueError, match="was trained on the backbone tiny, not on tiny_random: leave out"):
        Segmenter.open(checkpoint, backbone="tiny_random")


def test_the_branch_and_the_size_can_be_chosen(checkpoint, photographs):
    online = Segmenter.open(checkpoint, branch="online", size=96, device="cpu")(photographs[0])
    assert online.tokens.shape == (6, 6, 24)


def test_weights_that_moved_are_asked_for(checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    state["config"]["backbone"] = {"name": "dino_vits16", "weights": "/gone/dino.pth", "patch_sizes": None}
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(
        FileNotFoundError, match=r"/gone/dino\.pth, which do not exist: .*--backbone\.weights"
    ):
        Segmenter.open(tmp_path / "checkpoint.pt")
    with pytest.raises(FileNotFoundError, match=r"no file of backbone weights .*elsewhere\.pth"):
        Segmenter.open(tmp_path / "checkpoint.pt", weights=tmp_path / "elsewhere.pth")


@pytest.mark.parametrize("bank", [torch.zeros(5, 3), torch.full((5, 4), torch.nan), None, "none"])
def test_centroids_of_another_kind_are_refused(checkpoint, tmp_path, bank):
    state = torch.load(checkpoint, weights_only=True)
    torch.save({**state, "centroids_background": bank}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="holds no valid clusters: centroids_background"):
        Segmenter.open(tmp_path / "checkpoint.pt")


def test_a_size_below_the_coarsest_patch_is_refused(checkpoint):
    with pytest.raises(ValueError, match="size 40 is smaller than a patch of the coarsest level"):
        Segmenter.open(checkpoint, size=40)


def test_float32_is_not_rounded_in_convolutions_on_a_device_that_is_given(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    Segmenter.open(checkpoint, device=torch.device("cpu"))
    assert not torch.backends.cudnn.allow_tf32


def test_the_library_is_imported_when_it_is_asked_for():
    absent = "; assert {!r} not in sys.modules".format
    code = f"import hcl, sys{absent('torch')}; hcl.Segmenter{absent('nvidia')}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert hcl.Segmenter is Segmenter
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = hcl.Segmentor
