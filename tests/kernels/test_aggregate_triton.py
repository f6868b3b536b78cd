import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hcl.models.pm_vit import PMViT
from hcl.models.vit import VisionTransformer, ViTConfig
from kernels.aggregate import aggregate_tokens, fuse_tokens

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALVES = [torch.float16] + ([torch.bfloat16] if DEVICE == "cuda" else [])
GRIDS = [
    [(1, 1)],
    [(2, 1), (1, 1)],
    [(5, 2), (3, 2), (2, 1)],
    [(3, 2), (3, 2), (2, 2), (1, 2), (1, 1)],
]
SMALL = [(3, 2), (2, 1), (1, 1)]
OPERATIONS = {"aggregate": aggregate_tokens, "fuse": fuse_tokens}


def inputs(operation, grids, width, outputs=7, batch=2, seed=0):
    """Float64 sequences and parameters that half precision holds exactly."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator).half().double().to(DEVICE)

    sequences = [draw(batch, 1 + h * w, width) * 2 + 1 for h, w in grids]
    if operation == "aggregate":
        return sequences, [draw(width), draw(width)]
    return sequences, [draw(outputs, (len(grids) + 1) * width), *(draw(outputs) for _ in range(3))]


def forward_and_gradients(operation, sequences, grids, parameters, impl):
    leaves = [x.detach().clone().requires_grad_() for x in (*sequences, *parameters)]
    levels, rest = leaves[: len(grids)], leaves[len(grids) :]
    out = OPERATIONS[operation](levels, grids, *rest, impl=impl)
    waves = torch.sin(torch.arange(out.numel(), dtype=torch.float64, device=DEVICE)).view_as(out)
    return [out.detach(), *torch.autograd.grad(out, leaves, waves.to(out.dtype))]


def assert_as_near_as_the_reference(operation, grids, width, outputs=7, dtype=torch.float32, seed=0):
    sequences, parameters = inputs(operation, grids, width, outputs, seed=seed)
    truth = forward_and_gradients(operation, sequences, grids, parameters, "torch")
    sequences, parameters = ([x.to(dtype) for x in group] for group in (sequences, parameters))
    reference = forward_and_gradients(operation, sequences, grids, parameters, "torch")
    kernel = forward_and_gradients(operation, sequences, grids, parameters, "triton")
    for true, plain, fused in zip(truth, reference, kernel, strict=True):
        assert fused.dtype == plain.dtype
        assert fused.shape == plain.shape
        tolerance = 4 * torch.finfo(dtype).eps * max(1, true.abs().max())
        if true.ndim == 1:
            # A sum over cells in float32, of waves here: it rounds as their length does, though they cancel.
            tolerance += 4 * torch.finfo(torch.float32).eps * (truth[0].numel() / true.numel()) ** 0.5
        assert (fused - true).abs().max() <= (plain - true).abs().max() + tolerance


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("grids", GRIDS)
def test_forward_and_gradients(operation, grids):
    assert_as_near_as_the_reference(operation, grids, 6)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision(operation, dtype):
    assert_as_near_as_the_reference(operation, GRIDS[2], 6, dtype=dtype)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("width", [2, 15, 17])
def test_widths_around_a_block(operation, width):
    assert_as_near_as_the_reference(operation, [(2, 2), (2, 1)], width, width)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_channel_is_a_constant(operation):
    """What is left of its gradients is what rounding leaves, times the norm's factor of 1000 (eps 1e-6)."""
    grids = [(2, 2), (2, 1)]
    sequences, parameters = inputs(operation, grids, 1, 1)
    sequences, parameters = ([x.float() for x in group] for group in (sequences, parameters))
    out, *gradients = forward_and_gradients(operation, sequences, grids, parameters, "triton")
    torch.testing.assert_close(out, parameters[-1].expand_as(out), rtol=0, atol=1e-3)
    assert all(gradient.abs().max() < 1e-3 for gradient in gradients[: len(grids)])


def test_golden(golden, golden_pattern):
    g = golden("pm_vit_p16")
    vit = VisionTransformer(ViTConfig(16, width=48, depth=2, heads=3, table=14))
    weights = {key.removeprefix("dino."): torch.from_numpy(g[key]) for key in g if key.startswith("dino.")}
    vit.load_state_dict(weights)
    batch = len(g["out224.z"])
    levels = PMViT(vit, (16, 32, 56))(golden_pattern(batch, 224, float(g["phase"])))
    last = [x[-1:].to(DEVICE) for x in levels.sequences]
    norm = [x.to(DEVICE) for x in (vit.norm.weight, vit.norm.bias)]
    z = aggregate_tokens(last, levels.grids, *norm, impl="triton").cpu()
    torch.testing.assert_close(z, torch.from_numpy(g["out224.z"][-1:]), rtol=0, atol=1e-4)


@given(
    operation=st.sampled_from(sorted(OPERATIONS)),
    finest=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    strides=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=2),
    # A norm over one or two channels gives constants, and over few nearly so: its gradient is cancellation,
    # which a GPU's approximate roots and quotients shift beyond the bound.
    width=st.integers(6, 9),
    outputs=st.integers(5, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=8, deadline=None)
def test_any_shape(operation, finest, strides, width, outputs, seed):
    grids = [finest, *[(-(-finest[0] // s), -(-finest[1] // t)) for s, t in strides]]
    assert_as_near_as_the_reference(operation, grids, width, outputs, seed=seed)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_element_is_written(operation, nan_memory):
    sequences, parameters = inputs(operation, SMALL, 5)
    for tensor in forward_and_gradients(operation, sequences, SMALL, parameters, "triton"):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_strides_do_not_matter(operation):
    grids = SMALL
    sequences, parameters = inputs(operation, grids, 6)
    packed = torch.cat(sequences, dim=1)
    views = packed.split([x.shape[1] for x in sequences], dim=1)
    strided = [views[0], views[1].mT.contiguous().mT, views[2][:1].expand(2, -1, -1)]
    spread = [torch.stack([x, x], dim=-1)[..., 0] for x in parameters]
    sequences = [x.contiguous() for x in strided]
    results = forward_and_gradients(operation, sequences, grids, parameters, "triton")
    out = OPERATIONS[operation](strided, grids, *spread, impl="triton")
    torch.testing.assert_close(out, results[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_of_stride_0(operation):
    gradients = []
    for impl in ("torch", "triton"):
        sequences, parameters = inputs(operation, SMALL, 6)
        leaves = [x.requires_grad_() for x in (*sequences, *parameters)]
        OPERATIONS[operation](sequences, SMALL, *parameters, impl=impl).sum().backward()
        gradients.append([x.grad for x in leaves])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_same_input_gives_the_same_bits(operation):
    sequences, parameters = inputs(operation, SMALL, 6)
    sequences, parameters = [x.float() for x in sequences], [x.float() for x in parameters]
    once, again = (forward_and_gradients(operation, sequences, SMALL, parameters, "triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_empty_batch(operation):
    sequences, parameters = inputs(operation, GRIDS[1], 6, batch=0)
    out, *gradients = forward_and_gradients(operation, sequences, GRIDS[1], parameters, "triton")
    assert out.shape[:2] == (0, 2)
    assert all((gradient == 0).all() for gradient in gradients)


def test_opcheck():
    from kernels.aggregate.triton import aggregate_op, fuse_op

    grids = SMALL[1:]
    flat = [side for grid in grids for side in grid]
    levels, norm = inputs("aggregate", grids, 5)
    tensors = [x.float().requires_grad_() for x in (*levels, *norm)]
    torch.library.opcheck(aggregate_op, (tensors[:2], flat, *tensors[2:], 1e-6, torch.float32))
    cls = tensors[0].detach()[:, 0].requires_grad_()
    torch.library.opcheck(fuse_op, (tensors[:2], flat, cls, *tensors[2:], 1e-5, torch.float32))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_compiles_into_one_graph(operation):
    sequences, parameters = inputs(operation, SMALL, 6)
    leaves = [x.requires_grad_() for x in (*sequences, *parameters)]

    def call(*tensors):
        return OPERATIONS[operation](tensors[:3], SMALL, *tensors[3:], impl="triton")

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    plain, traced = call(*leaves), compiled(*leaves)
    torch.testing.assert_close(traced, plain, rtol=0, atol=0)
    expected = torch.autograd.grad(plain.square().sum(), leaves)
    torch.testing.assert_close(torch.autograd.grad(traced.square().sum(), leaves), expected, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("grids", [[(28, 28), (14, 14), (8, 8)], [(56, 56), (28, 28), (14, 14), (8, 8)]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_documented_shapes(operation, grids, dtype):
    assert_as_near_as_the_reference(operation, grids, 384, 768, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("operation", OPERATIONS)
def test_autocast_gives_the_reference_dtype(operation):
    sequences, parameters = inputs(operation, SMALL, 16, 16)
    sequences, parameters = [x.bfloat16() for x in sequences], [x.float() for x in parameters]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        plain, fused = (
            OPERATIONS[operation](sequences, SMALL, *parameters, impl=impl) for impl in ("torch", "triton")
        )
    assert fused.dtype == plain.dtype
    torch.testing.assert_close(fused, plain, rtol=0, atol=0.1)


@pytest.mark.gpu
def test_more_than_2_to_the_31_elements():
    grids, batch = [(56, 56), (8, 8)], 600
    sequences = [torch.randn(batch, 1 + h * w, 384, device="cuda", dtype=torch.bfloat16) for h, w in grids]
    weight, bias = torch.randn(2, 384, device="cuda", dtype=torch.bfloat16)
    z = aggregate_tokens(sequences, grids, weight, bias, impl="triton")
    assert z.numel() > 2**31
    last = [x[-1:] for x in sequences]
    torch.testing.assert_close(z[-1:], aggregate_tokens(last, grids, weight, bias, impl="triton"))
