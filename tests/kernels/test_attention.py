import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention import attend


def drawn(lengths, heads=2, width=4, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, sum(lengths), 3, heads, width, generator=generator, dtype=torch.float64)


def by_definition(qkv, lengths):
    """Softmax of scaled products, image by image, sequence by sequence, head by head."""
    out, heads = torch.empty_like(qkv[:, :, 0]), range(qkv.shape[3])
    for image, mixed in zip(qkv, out, strict=True):
        start = 0
        for length in lengths:
            for head in heads:
                q, k, v = image[start : start + length, :, head].unbind(1)
                mixed[start : start + length, head] = (q @ k.T / q.shape[1] ** 0.5).softmax(dim=1) @ v
            start += length
    return out.flatten(2)


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    heads=st.integers(1, 3),
    width=st.integers(1, 5),
    batch=st.integers(1, 2),
)
@settings(max_examples=25, deadline=None)
def test_equals_the_definition(lengths, heads, width, batch):
    qkv = drawn(lengths, heads, width, batch)
    torch.testing.assert_close(attend(qkv, lengths), by_definition(qkv, lengths))


def test_without_lengths_all_tokens_are_one_sequence():
    qkv = drawn((7,))
    assert torch.equal(attend(qkv), attend(qkv, [7]))


def test_gradients():
    qkv = drawn((3, 2), width=2, batch=1).requires_grad_()
    torch.autograd.gradcheck(lambda qkv: attend(qkv, [3, 2]), qkv)


def test_the_result_is_contiguous_and_of_the_inputs_dtype():
    qkv = drawn((3, 2)).half()
    out = attend(qkv.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0), (3, 2))
    assert out.is_contiguous()
    assert out.dtype == torch.float16
    assert out.shape == (2, 5, 8)


def test_autocast_decides_as_for_torchs_own():
    with torch.autocast("cpu", torch.bfloat16):
        assert attend(drawn((3, 2)).float(), (3, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (2, 5, 2, 2, 4), (2, 5, 3, 0, 4), (2, 5, 3, 2, 0)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"B, N, 3, heads, d.*shape \(2, 5"):
        attend(torch.zeros(shape))


def test_integers_are_refused():
    with pytest.raises(ValueError, match="int64"):
        attend(drawn((5,)).long())


@pytest.mark.parametrize("lengths", [(5,), (3, 3, 2), (7, 0), (8, -1), ()])
def test_lengths_that_do_not_fit_are_named(lengths):
    with pytest.raises(ValueError, match=r"sum to 7 tokens, got \("):
        attend(drawn((7,)), lengths)


def test_triton_refuses_what_it_cannot_take():
    half = drawn((3,), width=16).half()
    for qkv, named in (
        (half.float(), "float32"),
        (half.double(), "float64"),
        (half[..., :8], "d = 8"),
        (drawn((3,), width=144).half(), "d = 144"),
        (half.clone().requires_grad_(), "no gradient"),
        (half[:1, :1].expand(1, 2**26, 3, 2, 16), r"2\^31"),
    ):
        with pytest.raises(ValueError, match=f"impl='triton'.*{named}.*use 'auto' or 'torch'"):
            attend(qkv, impl="triton")
