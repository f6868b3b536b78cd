import pytest
import torch
import torch.nn.functional as F

from hcl.models.vit import Attention, Block, VisionTransformer, ViTConfig, initialise


def test_sequences_side_by_side_do_not_see_each_other():
    torch.manual_seed(0)
    block = Block(12, 3, eps=1e-6).double()
    parts = [torch.randn(2, n, 12, dtype=torch.float64) for n in (5, 1, 3)]
    together = block(torch.cat(parts, dim=1), [5, 1, 3])
    apart = torch.cat([block(part) for part in parts], dim=1)
    torch.testing.assert_close(together, apart)


def test_cls_row_is_the_first_row_of_the_softmax_attention():
    torch.manual_seed(0)
    attention = Attention(12, 3).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    q, k, _ = attention.qkv(x).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
    expected = (q @ k.mT / 4**0.5).softmax(dim=-1)[:, :, 0]
    torch.testing.assert_close(attention.cls_row(x), expected)


def test_native_grid_takes_the_table_as_it_is(make_vit):
    vit = make_vit()
    assert torch.equal(vit.patch_positions((6, 6)), vit.pos_embed[:, 1:])


@pytest.mark.parametrize("table", [14, 28, 37])
@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_positions_fit_every_grid(table, offset):
    vit = VisionTransformer(ViTConfig(width=1, depth=0, heads=1, table=table, position_offset=offset))
    for side in range(1, 90):
        assert vit.patch_positions((side, 3)).shape == (1, side * 3, 1)


def test_positions_are_row_major(make_vit):
    vit = make_vit()
    vit.pos_embed[:, 1:] = torch.arange(6.0).repeat_interleave(6)[
        None, :, None
    ]  # varies from row to row only
    positions = vit.patch_positions((3, 12)).unflatten(1, (3, 12))
    assert torch.allclose(positions, positions[:, :, :1], atol=1e-5)
    assert (positions[0, 1:, 0, 0] > positions[0, :-1, 0, 0]).all()


def test_positions_without_offset_are_resized_to_the_grid_itself(make_vit):
    vit = make_vit(position_offset=0.0, antialias=True)
    table = vit.pos_embed[:, 1:].mT.unflatten(-1, (6, 6))
    expected = F.interpolate(table, size=(3, 4), mode="bicubic", antialias=True)
    assert torch.equal(vit.patch_positions((3, 4)), expected.flatten(2).mT)


def test_offset_shifts_the_samples_of_the_table(make_vit):
    vit = make_vit()
    table = vit.pos_embed[:, 1:].mT.unflatten(-1, (6, 6))
    by_size = F.interpolate(table, size=(4, 4), mode="bicubic").flatten(2).mT
    assert not torch.allclose(vit.patch_positions((4, 4)), by_size, atol=1e-3)


def test_registers_are_left_out_of_the_cls_attention_after_the_softmax(make_vit):
    vit = make_vit(registers=4)
    x = torch.randn(2, 1 + 4 + 6, 12)
    _, attention = vit(x, [11])
    assert attention.shape == (2, 3, 6)
    assert (attention.sum(dim=-1) < 1).all()


def test_layer_scale_of_zero_leaves_the_residual_stream_alone(make_vit):
    vit = make_vit(layer_scale=True)
    for block in vit.blocks:
        block.ls1.gamma.zero_()
        block.ls2.gamma.zero_()
    x = torch.randn(1, 7, 12)
    assert torch.equal(vit(x, [7])[0], x)


def test_state_dict_has_the_keys_of_dino(make_vit):
    block = "norm1.weight norm1.bias attn.qkv.weight attn.qkv.bias attn.proj.weight attn.proj.bias "
    block += "norm2.weight norm2.bias mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias"
    own = "cls_token pos_embed patch_embed.proj.weight patch_embed.proj.bias norm.weight norm.bias"
    dino = {*own.split(), *(f"blocks.{i}.{key}" for i in range(2) for key in block.split())}
    assert set(make_vit().state_dict()) == dino
    dinov2 = dino | {"register_tokens"} | {f"blocks.{i}.ls{j}.gamma" for i in range(2) for j in (1, 2)}
    assert set(make_vit(registers=4, layer_scale=True).state_dict()) == dinov2


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10 cannot be divided among 4 heads"):
        Attention(10, 4)


def test_initialise_draws_small_weights_and_no_biases():
    layer = torch.nn.Linear(200, 100)
    initialise(layer, torch.Generator().manual_seed(0))
    assert abs(layer.weight.std().item() - 0.02) < 1e-3
    assert not layer.bias.any()


def test_registers_have_no_position(make_vit):
    vit = make_vit(registers=2)
    tokens = vit.sequence(torch.zeros(1, 36, 12), vit.patch_positions((6, 6)))
    assert torch.equal(tokens[:, 1:3], vit.register_tokens)
    assert torch.equal(tokens[:, :1], vit.cls_token + vit.pos_embed[:, :1])
    assert torch.equal(tokens[:, 3:], vit.pos_embed[:, 1:])
