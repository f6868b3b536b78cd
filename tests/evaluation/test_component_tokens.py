"""Which tokens each kind stands for, and what is refused."""

import pytest
import torch

from benchmarks.published import component_tokens
from hcl.data.dataset import DataConfig
from hcl.distributed import World
from hcl.evaluation.protocol import ProtocolConfig, open_extractor
from hcl.evaluation.tokens import TokenExtractor, untrained_head
from hcl.models.recorded_backbone import BackboneOverride
from hcl.models.seg_head import SegHead, SegHeadConfig
from hcl.models.weights import CheckpointError

CPU = torch.device("cpu")
SMALL_HEAD = SegHeadConfig(width=24, hidden=8, projection_dim=4, heads=12)


def config(**settings):
    return ProtocolConfig(
        data=DataConfig("scenes", "scenes", "val"), backbone=BackboneOverride("tiny"), **settings
    )


def test_head_tokens_are_component_tokens(backbone, extractor, images):
    with torch.no_grad():
        expected = component_tokens(extractor.head, backbone.concatenated(backbone(images)))
    assert extractor.channels == 24
    torch.testing.assert_close(extractor(images).tokens.clone(), expected, atol=1e-5, rtol=1e-5)


def test_pmvit_tokens_are_the_concatenated_levels(backbone, images):
    extractor = TokenExtractor(backbone, "pmvit", device=CPU)
    tokens = extractor(images).tokens
    assert tokens.shape == (2, 16, extractor.channels)
    assert torch.equal(tokens, backbone.concatenated(backbone(images)))


def test_backbone_tokens_are_the_normalised_patches_of_level_0(backbone, images):
    extractor = TokenExtractor(backbone, "backbone", device=CPU)
    finest = backbone.normalised(backbone(images)).sequences[0]
    assert extractor.channels == backbone.embed_dim
    torch.testing.assert_close(extractor(images).tokens.clone(), finest[:, 1:], atol=1e-5, rtol=1e-5)


def test_an_untrained_head_depends_on_its_seed_alone(backbone):
    torch.manual_seed(0)
    first = untrained_head(backbone, SMALL_HEAD, seed=5).state_dict()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    second = untrained_head(backbone, SMALL_HEAD, seed=5).state_dict()
    other = untrained_head(backbone, SMALL_HEAD, seed=6).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["multi_scale_fuser.weight"], other["multi_scale_fuser.weight"])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("branch", ["momentum", "online"])
def test_the_branch_chooses_the_head_of_a_checkpoint(backbone, tmp_path, branch):
    heads = {
        f"{name}_seg_head": untrained_head(backbone, SMALL_HEAD, seed).state_dict()
        for name, seed in (("momentum", 1), ("online", 2))
    }
    torch.save(heads, tmp_path / "head.pth.tar")
    head = config(checkpoint=str(tmp_path / "head.pth.tar"), branch=branch).given_head.head
    assert torch.equal(head.norm_2.weight, heads[f"{branch}_seg_head"]["norm_2.weight"])
    fuser = heads[f"{branch}_seg_head"]["multi_scale_fuser.weight"]
    assert torch.equal(head.multi_scale_fuser.weight, fuser)


def test_a_checkpoint_without_a_head_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="momentum_seg_head"):
        _ = config(checkpoint=str(tmp_path / "other.pt")).given_head


def test_a_head_for_another_backbone_is_refused(backbone):
    with pytest.raises(ValueError, match="takes 100 channels, but the backbone gives 384"):
        TokenExtractor(backbone, "head", SegHead(100, SMALL_HEAD), device=CPU)


@pytest.mark.parametrize("size", [70, 48])
def test_patches_must_tile_the_image(extractor, size):
    with pytest.raises(ValueError, match=f"size {size} must be a multiple of the patch size 16"):
        extractor.grid(size)


def test_the_backbones_own_tokens_need_no_room_for_coarser_levels(backbone):
    assert TokenExtractor(backbone, "backbone", device=CPU).grid(32) == (2, 2)
    with pytest.raises(ValueError, match=r"size 32.*56"):
        TokenExtractor(backbone, "pmvit", device=CPU).grid(32)


def test_the_extractor_is_as_the_configuration_says(backbone):
    opened = open_extractor(config(size=64, head=SMALL_HEAD, seed=5, precision="bf16"), World.alone(CPU))
    expected = untrained_head(backbone, SMALL_HEAD, seed=5).multi_scale_fuser.weight
    assert torch.equal(opened.head.multi_scale_fuser.weight, expected)
    assert opened.precision == "bf16"
    with pytest.raises(ValueError, match="size 70"):
        open_extractor(config(size=70, head=SMALL_HEAD), World.alone(CPU))
