import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.foreground import foreground_mask

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, torch.float64] + ([torch.bfloat16] if DEVICE == "cuda" else [])


def peaks(shape, seed=0):
    """Maps of which a few cells hold most of the mass, so that components of every size occur."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) ** 12 + 1e-4).to(DEVICE)


@pytest.mark.parametrize("side", [14, 20, 28])
def test_golden(golden, side):
    g = golden("foreground")
    attention = torch.from_numpy(g[f"cls_attention_{side}"]).unflatten(2, (side, side))[:1].to(DEVICE)
    mask = foreground_mask(attention, 0.7, impl="triton").cpu()
    assert (mask.numpy() == g[f"mask_{side}_70"][:1].astype(bool)).mean() >= 0.999


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("min_size", [1, 2, 3])
def test_equals_the_reference(dtype, min_size):
    attention = peaks((2, 3, 7, 5)).to(dtype)
    expected = foreground_mask(attention, 0.6, min_size=min_size, impl="torch")
    assert torch.equal(foreground_mask(attention, 0.6, min_size=min_size, impl="triton"), expected)


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (3, 1), (4, 5), (8, 9), (15, 17)])
def test_grids_around_a_block(grid):
    attention = peaks((1, 2, *grid))
    expected = foreground_mask(attention, 0.6, impl="torch")
    assert torch.equal(foreground_mask(attention, 0.6, impl="triton"), expected)


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    keep_mass=st.sampled_from([0.2, 0.65, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=6, deadline=None)
def test_any_shape(shape, keep_mass, seed):
    attention = peaks(shape, seed)
    expected = foreground_mask(attention, keep_mass, impl="torch")
    assert torch.equal(foreground_mask(attention, keep_mass, impl="triton"), expected)


def test_ties_are_taken_in_row_major_order():
    # Lone cells far apart blur to the same bits; eleven of sixteen stay, the later ones.
    attention = torch.zeros(1, 1, 29, 29, device=DEVICE, dtype=torch.float64)
    attention[:, :, 4::7, 4::7] = 1
    mask = foreground_mask(attention, 0.25, min_size=1, impl="triton")
    assert torch.equal(mask, foreground_mask(attention, 0.25, min_size=1, impl="torch"))
    assert 0 < mask.sum() < 16
    kept = mask[0, 4::7, 4::7].flatten().long()
    assert (kept.diff() >= 0).all()


def test_a_map_without_attention_has_no_foreground():
    attention = peaks((2, 2, 5, 5))
    attention[1] = 0
    mask = foreground_mask(attention, 1.0, impl="triton")
    assert mask[0].all()
    assert not mask[1].any()


def test_strides_do_not_matter():
    attention = peaks((2, 2, 6, 5))
    expected = foreground_mask(attention, 0.6, impl="torch")
    permuted = attention.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert torch.equal(foreground_mask(permuted, 0.6, impl="triton"), expected)
    shared = attention[:1].expand(3, -1, -1, -1)
    assert torch.equal(foreground_mask(shared, 0.6, impl="triton"), expected[:1].expand(3, -1, -1))
    assert foreground_mask(attention[:0], 0.6, impl="triton").shape == (0, 6, 5)


def test_every_cell_is_written(nan_memory):
    attention = peaks((1, 1, 5, 6))
    mask = foreground_mask(attention, 0.6, impl="triton")
    assert torch.equal(mask, foreground_mask(attention, 0.6, impl="torch"))


@pytest.mark.parametrize("grid", [(65, 60), (2, 257)])
def test_maps_beyond_the_largest_are_named(grid):
    attention = torch.rand(1, 1, *grid, device=DEVICE)
    with pytest.raises(ValueError, match=rf"4096 cells and 256 a side.*{grid[0]}x{grid[1]}"):
        foreground_mask(attention, 0.6, impl="triton")
    assert foreground_mask(attention, 0.6, impl="auto").shape == (1, *grid)


def test_a_map_that_is_not_finite_has_no_foreground():
    attention = peaks((2, 2, 6, 5))
    attention[1, 0, 2, 2] = torch.nan
    found = foreground_mask(attention, 0.6, impl="triton")
    assert torch.equal(found, foreground_mask(attention, 0.6, impl="torch"))
    assert found[0].any()
    assert not found[1].any()


def test_opcheck_and_one_graph():
    from kernels.foreground.triton import foreground_op

    attention = peaks((1, 2, 4, 3))
    torch.library.opcheck(foreground_op, (attention, 0.6, 3))
    compiled = torch.compile(
        lambda a: foreground_mask(a, 0.6, impl="triton"), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(attention), foreground_mask(attention, 0.6, impl="torch"))


@pytest.mark.gpu
@pytest.mark.parametrize("side", [14, 16, 28, 32, 40, 56, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_documented_grids(side, dtype):
    attention = torch.rand(64, 12, side, side, device="cuda").to(dtype)
    mask = foreground_mask(attention, 0.7, impl="triton")
    assert (mask == foreground_mask(attention, 0.7, impl="torch")).double().mean() >= 0.999
