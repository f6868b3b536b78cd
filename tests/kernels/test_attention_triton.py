import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kernels.attention import attend

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float16] + ([torch.bfloat16] if DEVICE == "cuda" else [])


def drawn(lengths, heads=2, width=16, batch=2, dtype=torch.float16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, sum(lengths), 3, heads, width)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)


def assert_as_near_as_the_reference(qkv, lengths):
    kernel, plain = (attend(qkv, lengths, impl=impl) for impl in ("triton", "torch"))
    truth = attend(qkv.double(), lengths, impl="torch")
    assert kernel.shape == plain.shape
    assert kernel.dtype == plain.dtype
    error, allowed = ((found - truth).abs().max() for found in (kernel, plain))
    # The weights and the result are rounded once each, to half a unit at most.
    assert error <= allowed + torch.finfo(qkv.dtype).eps * truth.abs().max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("lengths", "heads", "width"),
    [
        *(((1,), 1, 16), ((17,), 3, 32), ((5, 3, 1), 2, 64), ((1, 1, 1, 2), 1, 16)),
        *(((64,), 1, 16), ((70,), 1, 32), ((63, 64, 65), 1, 16), ((2, 130), 1, 16)),
        *(((9,), 2, 48), ((3, 4), 1, 112), ((18, 2), 1, 128), ((514, 1, 130), 1, 16)),
    ],
)
def test_lengths_heads_and_widths(lengths, heads, width, dtype):
    assert_as_near_as_the_reference(drawn(lengths, heads, width, dtype=dtype), lengths)


@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    heads=st.integers(1, 3),
    batch=st.integers(1, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=6, deadline=None)
def test_any_lengths(lengths, heads, batch, seed):
    assert_as_near_as_the_reference(drawn(lengths, heads, 16, batch, seed=seed), lengths)


def test_without_lengths_all_tokens_are_one_sequence():
    qkv = drawn((66,))
    assert torch.equal(attend(qkv, impl="triton"), attend(qkv, [66], impl="triton"))


@pytest.mark.parametrize("factor", [-60, 60])
def test_logits_far_from_zero(factor):
    """Weights of one and of nothing; and sums of exponentials that would be nothing but for the maximum."""
    qkv = drawn((70, 3))
    qkv[:, :, 0] *= factor
    assert_as_near_as_the_reference(qkv, (70, 3))
    qkv[:, :, 0], qkv[:, :, 1] = factor, 1
    assert_as_near_as_the_reference(qkv, (70, 3))


def test_every_value_is_written(nan_memory):
    assert_as_near_as_the_reference(drawn((5, 67, 2)), (5, 67, 2))


def test_nothing_is_read_beyond_the_tokens():
    memory = torch.full((3, 90, 3, 2, 16), torch.nan, dtype=torch.float16, device=DEVICE)
    memory[1, 7:80] = drawn((73,), batch=1)[0]
    assert_as_near_as_the_reference(memory[1:2, 7:80], (70, 3))


@pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:All-NaN slice")  # NumPy's
def test_nothing_crosses_between_sequences():
    lengths, qkv = (5, 66, 3), drawn((5, 66, 3))
    expected = attend(qkv, lengths, impl="triton")
    for start, length in zip((0, 5, 71), lengths, strict=True):
        changed = qkv.clone()
        changed[:, start : start + length] = torch.nan
        found = attend(changed, lengths, impl="triton")
        assert found[:, start : start + length].isnan().all()
        found[:, start : start + length] = expected[:, start : start + length]
        assert torch.equal(found, expected)


def test_bits_do_not_depend_on_what_else_is_in_the_batch():
    lengths, qkv = (66, 5), drawn((66, 5), heads=3, batch=3)
    out = attend(qkv, lengths, impl="triton")
    assert torch.equal(attend(qkv[1:2], lengths, impl="triton"), out[1:2])
    assert torch.equal(attend(qkv[:, :, :, 1:2], lengths, impl="triton"), out[:, :, 16:32])
    assert torch.equal(attend(qkv[:, 66:], impl="triton"), out[:, 66:])


def test_strides_do_not_matter():
    lengths, qkv = (4, 67), drawn((4, 67))
    expected = attend(qkv, lengths, impl="triton")
    wide = torch.cat([qkv, qkv], dim=4)[..., :16]
    for order in ((1, 0, 2, 3, 4), (2, 3, 0, 1, 4), (4, 3, 2, 1, 0)):
        back = [order.index(axis) for axis in range(5)]
        strided = wide.permute(order).contiguous().permute(back)
        assert torch.equal(attend(strided, lengths, impl="triton"), expected)
    assert torch.equal(attend(wide, lengths, impl="triton"), expected)
    assert torch.equal(attend(qkv[:1].expand(3, -1, -1, -1, -1), lengths, impl="triton"), expected[[0, 0, 0]])


def test_the_result_is_contiguous():
    qkv = drawn((3, 2)).transpose(0, 1).contiguous().transpose(0, 1)
    assert attend(qkv, (3, 2), impl="triton").is_contiguous()


def test_an_empty_batch():
    assert attend(drawn((3, 2))[:0], (3, 2), impl="triton").shape == (0, 5, 32)


def test_opcheck_and_one_graph():
    from kernels.attention.triton import attention_op

    qkv = drawn((4, 3))
    torch.library.opcheck(attention_op, (qkv, [4, 3]))
    compiled = torch.compile(
        lambda qkv: attend(qkv, (4, 3), impl="triton") + 1, fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(qkv), attend(qkv, (4, 3), impl="triton") + 1)


def test_auto_leaves_gradients_and_exports_to_torch(monkeypatch):
    """As on a GPU: Triton is taken where it can be, unless a gradient is wanted or a program is exported."""
    chosen = ("torch", "triton")
    monkeypatch.setattr("kernels.attention.choose", lambda impl, qkv, available: chosen[available])
    qkv = drawn((4, 3)).requires_grad_()
    plain, fused = (attend(qkv.detach(), (4, 3), impl=impl) for impl in ("torch", "triton"))
    out = attend(qkv, (4, 3))
    assert out.requires_grad
    assert torch.equal(out, plain)
    with torch.no_grad():
        assert torch.equal(attend(qkv, (4, 3)), fused)
        monkeypatch.setattr(torch.compiler, "_is_exporting_flag", True)
        assert torch.equal(attend(qkv, (4, 3)), plain)


def test_auto_is_triton_in_a_compiled_program_too(monkeypatch):
    """There torch 2.11 says that it is exporting."""
    monkeypatch.setattr("kernels.attention.choose", lambda impl, qkv, available: "triton")
    programs = []

    def backend(program, inputs):
        programs.append(program.code)
        return program

    qkv = drawn((4, 3))
    attend(qkv, (4, 3), impl="triton")
    torch.compile(lambda qkv: attend(qkv, (4, 3)), fullgraph=True, backend=backend)(qkv)
    assert "hcl_kernels.attention" in "".join(programs)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("lengths", "heads"),
    [
        *(((197, 50, 17), 6), ((785, 197, 50, 17), 6), ((257, 65, 17), 12), ((785, 197, 65), 6)),
        *(((3137, 785, 197, 65), 6), ((196,), 12), ((3136,), 12)),
    ],
)
def test_documented_lengths(lengths, heads, dtype):
    assert_as_near_as_the_reference(drawn(lengths, heads, 64, 2, dtype), lengths)


@pytest.mark.gpu
@pytest.mark.parametrize("tokens_first", [False, True])
def test_more_numbers_than_32_bits_count(tokens_first):
    lengths, few = (197, 50, 17), drawn((197, 50, 17), 6, 64, 4, torch.bfloat16)
    qkv = few.repeat(1800, 1, 1, 1, 1)
    assert qkv.numel() > 2**31
    if tokens_first:
        qkv = qkv.transpose(0, 1).contiguous().transpose(0, 1)
    out, expected = attend(qkv, lengths, impl="triton"), attend(few, lengths, impl="triton")
    assert all(torch.equal(images, expected) for images in out.split(4))


def test_its_operations_are_counted_as_torch_counts_products():
    qkv = drawn((5, 3, 1))
    attend(qkv, (5, 3, 1), impl="triton")  # a counter knows what is registered before it begins
    counts = {}
    for impl in ("torch", "triton"):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            attend(qkv, (5, 3, 1), impl=impl)
        counts[impl] = counter.get_total_flops()
    assert counts["triton"] == counts["torch"] > 0
