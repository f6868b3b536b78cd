import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.aggregate import aggregate_tokens, fuse_tokens

GRIDS = [[(1, 1)], [(2, 2), (1, 1)], [(7, 5), (3, 2), (2, 1)], [(5, 5), (5, 5), (3, 3), (1, 2)]]


def levels(grids, width, batch=2, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 1 + h * w, width, generator=generator).to(dtype) * 3 + 1 for h, w in grids]


def explicit_z(sequences, grids):
    """Upsample maps of shape (B, D, h, w), concatenate along channels, flatten."""
    batch, _, width = sequences[0].shape
    maps = [
        F.interpolate(x[:, 1:].mT.reshape(batch, width, h, w), size=grids[0], mode="bilinear")
        for x, (h, w) in zip(sequences, grids, strict=True)
    ]
    cls = sequences[0][:, 0, :, None, None].expand(-1, -1, *grids[0])
    return torch.cat([*maps, cls], dim=1).flatten(2).mT


def parameters(width, outputs, count):
    generator = torch.Generator().manual_seed(5)
    shapes = [(outputs, (count + 1) * width), (outputs,), (outputs,), (outputs,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("grids", GRIDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_aggregate_equals_the_explicit_form(grids, dtype):
    sequences = levels(grids, 6)
    weight, bias = torch.randn(2, 6, dtype=torch.float64)
    z = aggregate_tokens([x.to(dtype) for x in sequences], grids, weight.to(dtype), bias.to(dtype))
    expected = explicit_z([F.layer_norm(x, (6,), weight, bias, 1e-6) for x in sequences], grids)
    assert z.dtype == dtype
    assert z.shape == (2, grids[0][0] * grids[0][1], (len(grids) + 1) * 6)
    torch.testing.assert_close(z.double(), expected, rtol=0, atol=2e-6 if dtype == torch.float32 else 1e-12)


@given(
    finest=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    strides=st.lists(st.integers(1, 4), max_size=3),
    width=st.integers(1, 7),
    outputs=st.integers(1, 6),
)
@settings(max_examples=25, deadline=None)
def test_fuse_equals_linear_over_the_concatenation(finest, strides, width, outputs):
    grids = [finest, *[(-(-finest[0] // s), -(-finest[1] // s)) for s in strides]]
    sequences = levels(grids, width)
    weight, bias, norm_weight, norm_bias = parameters(width, outputs, len(grids))
    fused = fuse_tokens(sequences, grids, weight, bias, norm_weight, norm_bias)
    linear = F.linear(explicit_z(sequences, grids), weight, bias)
    expected = F.layer_norm(linear, (outputs,), norm_weight, norm_bias, 1e-5)
    torch.testing.assert_close(fused, expected, rtol=1e-8, atol=1e-8)


def test_fuse_in_float32_is_as_near_the_truth_as_the_explicit_form():
    grids = GRIDS[2]
    sequences, tensors = levels(grids, 16), parameters(16, 12, 3)

    def explicit(dtype):
        weight, bias, norm_weight, norm_bias = (t.to(dtype) for t in tensors)
        linear = F.linear(explicit_z([x.to(dtype) for x in sequences], grids), weight, bias)
        return F.layer_norm(linear, (12,), norm_weight, norm_bias, 1e-5).double()

    truth = explicit(torch.float64)
    fused = fuse_tokens([x.float() for x in sequences], grids, *(t.float() for t in tensors))
    assert (fused - truth).abs().max() <= (explicit(torch.float32) - truth).abs().max() + 1e-6


def test_fuse_gradients_of_all_parameters():
    grids = [(3, 2), (2, 1)]
    sequences = levels(grids, 3)
    tensors = [t.requires_grad_() for t in parameters(3, 4, 2)]
    assert torch.autograd.gradcheck(lambda *p: fuse_tokens(sequences, grids, *p), tensors)


def test_non_contiguous_inputs_change_nothing():
    grids = GRIDS[2]
    sequences, tensors = levels(grids, 6), parameters(6, 4, 3)
    strided = [x.mT.contiguous().mT for x in sequences]
    weight = tensors[0].T.contiguous().T
    torch.testing.assert_close(
        fuse_tokens(strided, grids, weight, *tensors[1:]), fuse_tokens(sequences, grids, *tensors)
    )
    ones, zeros = torch.ones(12)[::2].double(), torch.zeros(6).double()
    torch.testing.assert_close(
        aggregate_tokens(strided, grids, ones, zeros), aggregate_tokens(sequences, grids, ones, zeros)
    )


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ([(2, 2)], "2 sequences and 1 grids"),
        ([(2, 2), (2, 1)], r"expected shape \(2, 3, 6\), got \(2, 2, 6\)"),
        ([(1, 4), (2, 1)], "finest first"),
        ([(4, 1), (0, 1)], "hold cells"),
    ],
)
def test_grids_that_do_not_fit(grids, message):
    sequences = levels([(2, 2), (1, 1)], 6)
    with pytest.raises(ValueError, match=message):
        aggregate_tokens(sequences, grids, torch.ones(6), torch.zeros(6))


@pytest.mark.parametrize(("first", "second"), [(torch.int64, torch.int64), (torch.float32, torch.bfloat16)])
def test_levels_are_floating_point_of_one_dtype(first, second):
    fine, coarse = levels([(2, 2), (1, 1)], 6)
    with pytest.raises(ValueError, match=f"floating point of one dtype for all levels, got {second}"):
        aggregate_tokens([fine.to(first), coarse.to(second)], [(2, 2), (1, 1)], torch.ones(6), torch.zeros(6))


def test_parameters_that_do_not_fit():
    sequences, vector = levels([(1, 1)], 6), torch.ones(4)
    with pytest.raises(ValueError, match=r"norm_bias: expected shape \(6,\), got \(4,\)"):
        aggregate_tokens(sequences, [(1, 1)], torch.ones(6), vector)
    with pytest.raises(ValueError, match=r"weight: expected shape \(4, 12\), got \(4, 6\)"):
        fuse_tokens(sequences, [(1, 1)], torch.ones(4, 6), vector, vector, vector)
    with pytest.raises(ValueError, match=r"bias: expected shape \(4,\), got \(6,\)"):
        fuse_tokens(sequences, [(1, 1)], torch.ones(4, 12), torch.ones(6), vector, vector)
