import pytest
import torch
import torch.nn.functional as F

from hcl.models.pm_vit import MOST_TABLES, PMViT, pi_resize
from hcl.models.vit import VisionTransformer, ViTConfig

LEVELS = (4, 8, 14)


@pytest.mark.parametrize("name", ["w16_to_32", "w16_to_56", "w8_to_16", "w8_to_32", "w8_to_56"])
def test_pi_resize_matches_the_published_program(golden, name):
    vectors = golden("pi_resize")
    source, size = name.split("_to_")
    resized = pi_resize(torch.from_numpy(vectors[source]), int(size))
    torch.testing.assert_close(resized, torch.from_numpy(vectors[name]), atol=1e-6, rtol=0)


def test_pi_resized_kernel_sees_on_resized_patches_what_the_kernel_sees_on_patches():
    torch.manual_seed(0)
    kernel, patch = torch.randn(5, 3, 4, 4), torch.randn(1, 3, 4, 4)
    larger = F.interpolate(patch, size=(14, 14), mode="bicubic", antialias=True)
    torch.testing.assert_close(F.conv2d(larger, pi_resize(kernel, 14)), F.conv2d(patch, kernel))


@pytest.mark.parametrize(
    ("name", "patch_sizes", "size"),
    [
        ("pm_vit_p16", (16, 32, 56), 224),
        ("pm_vit_p16", (16, 32, 56), 448),
        ("pm_vit_p16", (16, 32, 56), 320),
        ("pm_vit_p8", (8, 16, 32, 56), 224),
    ],
)
def test_matches_the_published_program(golden, golden_pattern, section, name, patch_sizes, size):
    config = ViTConfig(patch_sizes[0], width=48, depth=2, heads=3, table=224 // patch_sizes[0])
    vit = VisionTransformer(config)
    vit.load_state_dict(section(name, "dino."))
    model = PMViT(vit, patch_sizes)
    expected = section(name, f"out{size}.")
    images = golden_pattern(len(expected["z"]), size, float(golden(name)["phase"]))
    levels = model(images)
    cls_token = model.normalised(levels).sequences[0][:, 0]
    close = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(model.concatenated(levels), expected["z"], **close)
    torch.testing.assert_close(levels.cls_attention.flatten(2), expected["cls_attention"], **close)
    torch.testing.assert_close(cls_token, expected["cls_token"], **close)


def test_shapes_of_any_height_and_width(make_vit):
    model = PMViT(make_vit(), LEVELS)
    levels = model(torch.randn(2, 3, 19, 34))
    assert levels.grids == ((4, 8), (2, 4), (1, 2))
    assert [tuple(s.shape) for s in levels.sequences] == [(2, 33, 12), (2, 9, 12), (2, 3, 12)]
    assert levels.cls_attention.shape == (2, 3, 4, 8)
    assert model.concatenated(levels).shape == (2, 32, 4 * 12)
    assert (model.embed_dim, model.levels, model.patch_sizes) == (12, 3, LEVELS)


def test_a_level_drops_the_remainder_at_the_border(make_vit):
    images = torch.randn(1, 3, 19, 34)
    whole = PMViT(make_vit(), LEVELS)(images)
    cropped = PMViT(make_vit(), LEVELS[:1])(images[..., :16, :32])
    torch.testing.assert_close(whole.sequences[0], cropped.sequences[0])
    torch.testing.assert_close(whole.cls_attention, cropped.cls_attention)


def test_position_tables_of_many_shapes_are_not_all_kept(make_vit):
    backbone = PMViT(make_vit(), LEVELS)
    grids = [(rows, 3) for rows in range(2, 2 + 2 * MOST_TABLES)]
    tables = [backbone._patch_positions(grid) for grid in grids]
    assert len(backbone._positions) == MOST_TABLES
    assert backbone._patch_positions(grids[-1]) is tables[-1]
    assert torch.equal(backbone._patch_positions(grids[0]), tables[0])


def test_registers_are_dropped(make_vit):
    vit = make_vit(registers=4)
    images = torch.randn(1, 3, 16, 16)
    levels = PMViT(vit, LEVELS)(images)
    assert [s.shape[1] for s in levels.sequences] == [17, 5, 2]
    tokens, _ = vit(vit.embed(images, vit.patch_embed.proj.weight, vit.patch_positions((4, 4))), [21])
    torch.testing.assert_close(levels.sequences[0], tokens[:, [0, *range(5, 21)]])


def test_never_trains(make_vit):
    parent = torch.nn.Sequential(PMViT(make_vit().requires_grad_(True), LEVELS))
    parent.train()
    assert parent.training
    assert not any(module.training for module in parent[0].modules())
    assert not any(parameter.requires_grad for parameter in parent.parameters())
    assert not parent[0](torch.randn(1, 3, 16, 16)).sequences[0].requires_grad


def test_loading_other_weights_renews_what_was_derived_from_the_old(make_vit):
    model, other = PMViT(make_vit(seed=0), LEVELS), PMViT(make_vit(seed=1), LEVELS)
    images = torch.randn(1, 3, 20, 20)
    model(images)
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model.concatenated(model(images)), other.concatenated(other(images)))


def test_state_dict_is_the_backbones_own(make_vit):
    assert set(PMViT(make_vit(), LEVELS).state_dict()) == {f"vit.{key}" for key in make_vit().state_dict()}


def test_compiles_into_one_graph(make_vit):
    model = PMViT(make_vit(), LEVELS)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for size in (20, 28):
        images = torch.randn(1, 3, size, size)
        torch.testing.assert_close(compiled(images).sequences, model(images).sequences)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 13, 40), "13x40 pixels are smaller than a patch of the coarsest level, 14x14"),
        ((1, 1, 28, 28), r"must be \(B, 3, H, W\), not \(1, 1, 28, 28\)"),
        ((3, 28, 28), r"must be \(B, 3, H, W\), not \(3, 28, 28\)"),
    ],
)
def test_refuses_images_that_do_not_fit(make_vit, shape, message):
    with pytest.raises(ValueError, match=message):
        PMViT(make_vit(), LEVELS)(torch.zeros(shape))


@pytest.mark.parametrize("patch_sizes", [(), (8, 14), (4, 14, 8), (4, 8, 8)])
def test_refuses_patch_sizes_that_do_not_ascend_from_the_backbones(make_vit, patch_sizes):
    with pytest.raises(ValueError, match="must be ascending, from the backbone's own, 4"):
        PMViT(make_vit(), patch_sizes)


def test_a_pair_is_what_each_view_gives_alone(make_vit):
    model = PMViT(make_vit(), LEVELS).double()
    views = torch.randn(2, 2, 3, 19, 34, dtype=torch.float64).unbind()
    for found, view in zip(model.pair(views), views, strict=True):
        expected = model.normalised(model(view))
        assert found.grids == expected.grids
        torch.testing.assert_close(found.sequences, expected.sequences)
        torch.testing.assert_close(found.cls_attention, expected.cls_attention)


def test_a_backbone_that_is_brought_to_another_dtype_resizes_its_positions_anew(make_vit):
    model, images = PMViT(make_vit(), LEVELS), torch.randn(1, 3, 19, 34)
    model(images)
    found = model.double()(images.double()).sequences
    fresh = PMViT(make_vit().double(), LEVELS)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(found[0], fresh(images.double()).sequences[0], rtol=1e-12, atol=1e-12)
