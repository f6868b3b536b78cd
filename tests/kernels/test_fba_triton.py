import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.fba import fba_contrastive

TAU = 0.07
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if DEVICE == "cuda" else [])


def case(tokens=37, width=5, fg=4, bg=3, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    q, k = (F.normalize(draw(tokens, width), dim=1) for _ in range(2))
    foreground = torch.rand(tokens, generator=generator) < 0.4
    floats = [t.to(DEVICE, dtype) for t in (q, k, draw(fg, width) / 2, draw(bg, width) / 3)]
    return *floats[:2], foreground.to(DEVICE), *floats[2:]


def cast(inputs, dtype):
    return [t.to(dtype) if t.is_floating_point() else t for t in inputs]


def run(q, k, foreground, fg, bg, impl):
    """Losses, dL/dq of two losses weighed apart, and the assignment."""
    q = q.detach().requires_grad_()
    out = fba_contrastive(q, k, foreground, fg, bg, TAU, impl=impl)
    (gradient,) = torch.autograd.grad(out.loss_fg + 2 * out.loss_bg, q)
    return out, gradient


def assert_as_near_as_the_reference(*inputs, condition=1):
    """`condition`: how much larger the logits are than those of unit tokens; so is their rounding."""
    kernel, kernel_gradient = run(*inputs, "triton")
    plain, plain_gradient = run(*inputs, "torch")
    truth, true_gradient = run(*cast(inputs, torch.float64), "torch")
    assert torch.equal(kernel.assignment, truth.assignment)
    assert torch.equal(kernel.count_fg, truth.count_fg)
    assert torch.equal(kernel.count_bg, truth.count_bg)
    assert kernel_gradient.dtype == plain_gradient.dtype
    triples = [(getattr(o, name) for o in (kernel, plain, truth)) for name in ("loss_fg", "loss_bg")]
    for fused, reference, true in triples:
        assert fused.dtype == reference.dtype
        assert (fused - true).abs() <= (reference - true).abs() + 2e-6 * condition * max(1, true.abs())
    if len(true_gradient) == 0:
        return
    # Of this size are the terms whose difference a gradient is.
    terms = max(1 / truth.count_fg.clamp(min=1), 2 / truth.count_bg.clamp(min=1)) / TAU
    scale = max(true_gradient.abs().max(), terms)
    # Logits and log-sum-exp lie below 1 / (tau ln 2) = 20.6, where two roundings times ln 2 come to 11 eps.
    rounding = 12 * condition * torch.finfo(torch.float32).eps
    if inputs[0].dtype != torch.float32:
        rounding += 4 * torch.finfo(inputs[0].dtype).eps
    error, allowed = ((g - true_gradient).abs().max() for g in (kernel_gradient, plain_gradient))
    assert error <= allowed + rounding * scale


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("tokens", "width", "fg", "bg"),
    [(1, 1, 1, 1), (2, 2, 1, 2), (31, 7, 63, 65), (63, 16, 64, 5), (129, 17, 3, 67), (65, 33, 31, 1)],
)
def test_forward_and_gradient(tokens, width, fg, bg, dtype):
    assert_as_near_as_the_reference(*case(tokens, width, fg, bg, dtype))


@given(
    tokens=st.integers(0, 70),
    width=st.integers(1, 20),
    fg=st.integers(1, 70),
    bg=st.integers(1, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=8, deadline=None)
def test_any_shape(tokens, width, fg, bg, seed):
    assert_as_near_as_the_reference(*case(tokens, width, fg, bg, seed=seed))


@pytest.mark.parametrize("width", [257, 300])
def test_half_precision_tokens_too_wide_to_stay(width):
    assert_as_near_as_the_reference(*case(5, width, 3, 2, torch.float16))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [100, 130])
def test_where_shared_memory_is_scarce(width, dtype, monkeypatch):
    from kernels.fba import triton

    monkeypatch.setattr(triton, "is_cramped", lambda tensor: True)
    assert_as_near_as_the_reference(*case(9, width, 3, 2, dtype))


def test_the_gradient_towards_short_centroids_fits_half_precision():
    """Weights of the softmax are divided by the centroids' lengths, here to twice the largest float16."""
    q, k, foreground, fg, bg = case(23, 6, dtype=torch.float16)
    fg[1] *= 1e-4 / fg[1].norm()
    _, gradient = run(q, k, foreground, fg, bg, "triton")
    _, expected = run(*cast((q, k, foreground, fg, bg), torch.float32), "torch")
    torch.testing.assert_close(gradient.float(), expected, rtol=2e-3, atol=2e-3 * expected.abs().max().item())


def test_centroids_of_another_dtype():
    q, k, foreground, fg, bg = case(21, 6)
    assert_as_near_as_the_reference(q.half(), k.half(), foreground, fg, bg)
    assert_as_near_as_the_reference(q, k.half(), foreground, fg.half(), bg)


def test_golden(golden):
    g = {key: torch.from_numpy(value).to(DEVICE) for key, value in golden("fba_step").items()}
    q, foreground = g["q"].requires_grad_(), g["foreground"].bool()
    banks, tau = (g["centroids_fg_raw"], g["centroids_bg_raw"]), g["temperature"].item()
    out = fba_contrastive(q, g["k"], foreground, *banks, tau, impl="triton")
    (0.5 * (out.loss_fg + out.loss_bg)).backward()
    losses = torch.stack([out.loss_fg, out.loss_bg]).detach().double()
    torch.testing.assert_close(losses, g["loss"][1:3], rtol=0, atol=1e-5)
    assert torch.equal(out.assignment, g["assignment"])
    torch.testing.assert_close(q.grad, g["grad_q"], rtol=0, atol=1e-5 * g["grad_q"].abs().max().item())


def test_unnormalised_tokens_opposite_to_all_centroids():
    q, k, foreground, fg, bg = case(33, 4)
    assert_as_near_as_the_reference(-9 * q.abs(), -k.abs(), foreground, fg.abs(), bg.abs(), condition=9)


def test_of_equal_centroids_the_first_wins():
    q, k, foreground, fg, bg = case(19, 4)
    out, _ = run(q, k, foreground, fg[[0, 0, 0]], bg[[1, 1]], "triton")
    assert not out.assignment.any()
    assert_as_near_as_the_reference(q, k, foreground, fg[[2, 0, 2, 0]], bg[[1, 1]])


def test_a_centroid_of_length_zero():
    q, k, foreground, fg, bg = case(23, 4)
    fg[1] = 0
    assert_as_near_as_the_reference(q, k, foreground, fg, bg)
    out, gradient = run(*cast((q, k, foreground, fg, bg), torch.float16), "triton")
    assert out.loss_fg.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("present", [True, False])
def test_a_bank_without_tokens_costs_nothing(present, nan_memory):
    q, k, foreground, *banks = case()
    q.requires_grad_()
    out = fba_contrastive(q, k, torch.full_like(foreground, present), *banks, TAU, impl="triton")
    absent, count = (out.loss_bg, out.count_bg) if present else (out.loss_fg, out.count_fg)
    assert (absent, count) == (0, 0)
    (gradient,) = torch.autograd.grad(absent, q)
    assert torch.equal(gradient, torch.zeros_like(q))


def test_no_tokens_at_all():
    inputs = [t[:0] if i < 3 else t for i, t in enumerate(case())]
    out, gradient = run(*inputs, "triton")
    assert tuple(out[:4]) == (0, 0, 0, 0)
    assert out.assignment.shape == (0,)
    assert gradient.shape == (0, 5)


def test_every_output_is_written(nan_memory):
    assert_as_near_as_the_reference(*case(67, 6, 5, 66))


def test_non_contiguous_and_stride_0_inputs():
    q, k, foreground, fg, bg = case(35, 6)
    strided = (q.T.contiguous().T, k.repeat(1, 2)[:, :6], foreground.repeat_interleave(2)[::2])
    expected = run(q, k, foreground, fg, bg, "triton")
    torch.testing.assert_close(run(*strided, fg.T.contiguous().T, bg, "triton"), expected, rtol=0, atol=0)
    one = q[:1].expand(35, 6)
    assert_as_near_as_the_reference(one, one, foreground[:1].expand(35), fg, bg)


def test_gradient_through_a_sum():
    q, k, *rest = case()
    gradients = []
    for impl in ("triton", "torch"):
        leaf = q.clone().requires_grad_()
        out = fba_contrastive(leaf, k, *rest, TAU, impl=impl)
        torch.stack([out.loss_fg, out.loss_bg]).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_gradient_reaches_q_alone():
    q, k, foreground, *banks = case()
    leaves = [t.requires_grad_() for t in (q, k, *banks)]
    out = fba_contrastive(q, k, foreground, *banks, TAU, impl="triton")
    gradients = torch.autograd.grad(out.loss_fg + out.loss_bg, leaves, allow_unused=True)
    assert [g is not None for g in gradients] == [True, False, False, False]


def test_same_input_same_bits():
    inputs = case(131, 9, 5, 66)
    (first, gradient), (second, other) = run(*inputs, "triton"), run(*(t.clone() for t in inputs), "triton")
    assert all(torch.equal(a, b) for a, b in zip((*first, gradient), (*second, other), strict=True))


def test_float64_is_refused():
    inputs = cast(case(), torch.float64)
    with pytest.raises(NotImplementedError, match="no Triton form"):
        fba_contrastive(*inputs, TAU, impl="triton")


def test_compiles_into_one_graph():
    q, k, *rest = case()
    q.requires_grad_()

    def loss(q, k, *rest):
        out = fba_contrastive(q, k, *rest, TAU, impl="triton")
        return out.loss_fg + 2 * out.loss_bg, out.assignment

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = [f(q, k, *rest) for f in (compiled, loss)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(r[0], q)[0] for r in results))


def test_operators_keep_their_contract():
    from kernels.fba import triton

    q, k, foreground, fg, bg = case(11, 3)
    count_fg = foreground.sum()
    tokens = triton.partition(foreground, count_fg, triton.PARTITION_BLOCK)
    centroids = torch.cat([fg, bg])
    squares = centroids.square().sum(dim=1)
    scales = squares.rsqrt()
    arguments = (q.requires_grad_(), k, tokens, count_fg, centroids, squares, scales, len(fg))
    torch.library.opcheck(triton.fba_forward, arguments)
    _, assignment, lse = triton.fba_forward(*arguments)
    ones = torch.ones((), device=DEVICE).expand(2)
    arguments = (ones, q.detach(), tokens, count_fg, centroids, scales, assignment, lse, len(fg))
    torch.library.opcheck(triton.fba_backward, arguments)


@pytest.mark.parametrize("foreground", [[], [True], [False], [True, False, False, True, True, False, True]])
def test_partition_is_stable_and_begins_banks_at_blocks(foreground):
    from kernels.fba import triton

    mask = torch.tensor(foreground, dtype=torch.bool)
    count = len(mask)
    slots = triton.partition(mask, mask.sum(), 2)
    assert len(slots) == 2 * (-(-count // 2) + 1)
    assert torch.equal(slots[slots < count], torch.cat([mask.nonzero(), (~mask).nonzero()])[:, 0])
    for block in slots.view(-1, 2).tolist():
        assert len({foreground[i] for i in block if i < count}) <= 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "clusters"), [(100, 500), (256, 500), (384, 4096), (768, 77)])
def test_large_shapes(width, clusters, dtype):
    q, k, foreground, fg, bg = case(20011, width, clusters, clusters - 1, dtype)
    kernel, gradient = run(q, k, foreground, fg, bg, "triton")
    plain, expected = run(*cast((q, k, foreground, fg, bg), torch.float32), "torch")
    assert (kernel.assignment != plain.assignment).sum() <= 3
    torch.testing.assert_close(kernel[:2], plain[:2], rtol=1e-3, atol=1e-3)
    atol = (4 * torch.finfo(dtype).eps + 1e-5) * expected.abs().max().item()
    rows = kernel.assignment == plain.assignment
    torch.testing.assert_close(gradient[rows].float(), expected[rows], rtol=0, atol=atol)


@pytest.mark.gpu
def test_offsets_beyond_32_bits():
    tokens = 2**31 // 256 + 200
    drawn = (torch.randn(tokens, 256, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    q, k = (F.normalize(x, dim=1) for x in drawn)
    _, _, _, fg, bg = case(1, 256, 5, 3, torch.bfloat16)
    foreground = torch.rand(tokens, device=DEVICE) < 0.5
    out, gradient = run(q, k, foreground, fg, bg, "triton")
    tail = slice(-300, None)
    plain, expected = run(q[tail], k[tail], foreground[tail], fg, bg, "torch")
    assert torch.equal(out.assignment[tail], plain.assignment)
    share = torch.where(foreground[tail], plain.count_fg / out.count_fg, plain.count_bg / out.count_bg)
    expected = expected.float() * share[:, None]
    # The kernel rounds the softmax's weights to bfloat16 before it multiplies them with the centroids; where
    # these products cancel, the error is of the largest gradient's size, not of the entry's own.
    atol = torch.finfo(torch.bfloat16).eps * expected.abs().max().item()
    torch.testing.assert_close(gradient[tail].float(), expected, rtol=0.02, atol=atol)


@pytest.mark.gpu
def test_is_captured_in_a_cuda_graph():
    inputs = case(1001, 64, 20, 30, torch.bfloat16)
    warm, _ = run(*inputs, "triton")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = fba_contrastive(*inputs, TAU, impl="triton")
    graph.replay()
    torch.testing.assert_close(tuple(captured), tuple(t.detach() for t in warm), rtol=0, atol=0)
