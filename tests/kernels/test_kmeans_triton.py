import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.kmeans import cluster_sums, kmeans, lloyd_step, momentum_centroid_update, nearest_centroid

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if DEVICE == "cuda" else [])


def rows(count, width, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64).to(DEVICE, dtype)


def excess(x, centroids, assignment):
    """How much farther than the nearest centroid the assigned one is, relative to the scores' size."""
    c = centroids.double()
    scores = c.square().sum(dim=1) - 2 * x.double() @ c.T
    own = scores.gather(1, assignment[:, None])[:, 0]
    return ((own - scores.amin(dim=1)) / scores.abs().amax(dim=1).clamp(min=1e-30)).amax() if len(x) else 0


def assert_as_near_as_the_reference(x, centroids):
    kernel, plain = (lloyd_step(x, centroids, impl=impl) for impl in ("triton", "torch"))
    assert [t.dtype for t in kernel] == [t.dtype for t in plain]
    assert torch.equal(nearest_centroid(x, centroids, impl="triton"), kernel.assignment)
    assert excess(x, centroids, kernel.assignment) <= excess(x, centroids, plain.assignment) + 1e-6
    members = kernel.assignment[:, None] == torch.arange(len(centroids), device=DEVICE)
    assert torch.equal(kernel.counts, members.sum(dim=0))
    torch.testing.assert_close(kernel.sums, members.double().T @ x.double(), rtol=1e-12, atol=1e-12)
    distances = (x.double() - centroids.double()[kernel.assignment]).square().sum()
    size = x.double().square().sum().item()
    torch.testing.assert_close(kernel.inertia, distances, rtol=1e-12, atol=1e-11 * size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("count", "width", "clusters"),
    [(1, 1, 1), (2, 2, 2), (127, 7, 63), (128, 16, 64), (129, 17, 65), (31, 33, 131), (13, 129, 3)],
)
def test_step(count, width, clusters, dtype):
    assert_as_near_as_the_reference(rows(count, width, dtype), rows(clusters, width, dtype, seed=1))


@given(
    count=st.integers(0, 140), width=st.integers(1, 40), clusters=st.integers(1, 70), seed=st.integers(0, 9)
)
@settings(max_examples=8, deadline=None)
def test_any_shape(count, width, clusters, seed):
    assert_as_near_as_the_reference(rows(count, width, seed=seed), rows(clusters, width, seed=seed + 1))


@pytest.mark.parametrize("width", [257, 1024])
def test_half_precision_rows_too_wide_to_stay(width):
    assert_as_near_as_the_reference(rows(5, width, torch.float16), rows(3, width, torch.float16, seed=1))


def test_centroids_of_another_dtype():
    assert_as_near_as_the_reference(rows(21, 6, torch.float16), rows(5, 6, seed=1))


def test_all_similarities_negative():
    assert_as_near_as_the_reference(-rows(33, 4).abs() - 3, rows(7, 4, seed=1).abs() + 3)


def test_of_equal_centroids_the_first_wins():
    x = rows(9, 3)
    assert not nearest_centroid(x, x[[2] * 67], impl="triton").any()


def test_every_output_is_written(nan_memory):
    assert_as_near_as_the_reference(rows(67, 5), rows(66, 5, seed=1) + 1)


def test_clusters_of_many_pieces_and_of_none(monkeypatch):
    from kernels.kmeans import triton

    monkeypatch.setattr(triton, "PIECE_ROWS", 4)
    x = rows(45, 3)
    assignment = torch.arange(45, device=DEVICE) % 7 - 1
    assignment[10:40] = 8
    sums, counts = cluster_sums(x, assignment, 11, impl="triton")
    expected, expected_counts = cluster_sums(x, assignment, 11, impl="torch")
    assert torch.equal(counts, expected_counts)
    torch.testing.assert_close(sums, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weight_is_as_many_rows(monkeypatch, dtype):
    from kernels.kmeans import triton

    monkeypatch.setattr(triton, "PIECE_ROWS", 4)
    x, centroids = rows(45, 3, dtype), rows(6, 3, dtype, seed=1)
    weights = (torch.arange(90, device=DEVICE) % 5)[::2]
    weighted = lloyd_step(x, centroids, weights=weights, impl="triton")
    repeated = lloyd_step(x.repeat_interleave(weights, dim=0), centroids, impl="torch")
    assert torch.equal(weighted.assignment.repeat_interleave(weights), repeated.assignment)
    assert torch.equal(weighted.counts, repeated.counts)
    torch.testing.assert_close(weighted.sums, repeated.sums, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weighted.inertia, repeated.inertia, rtol=1e-9, atol=1e-9)
    sums, counts = cluster_sums(x, weighted.assignment, 6, weights=weights, impl="triton")
    assert torch.equal(sums, weighted.sums)
    assert torch.equal(counts, weighted.counts)


def test_negative_assignment_belongs_to_no_cluster():
    assignment = torch.tensor([-1, 0, 2, -1], device=DEVICE)
    sums, counts = cluster_sums(torch.ones(4, 2, device=DEVICE), assignment, 3, impl="triton")
    assert counts.tolist() == [1, 0, 1]
    assert sums.tolist() == [[1, 1], [0, 0], [1, 1]]


@pytest.mark.skipif(DEVICE == "cuda", reason="it would end all work on the GPU")
@pytest.mark.parametrize("beyond", [3, 4, 2**32])
@pytest.mark.parametrize("impl", ["triton", "torch"])
def test_an_assignment_beyond_the_clusters_is_an_error(beyond, impl):
    with pytest.raises(RuntimeError, match="out of bounds"):
        cluster_sums(torch.ones(2, 2), torch.tensor([0, beyond]), 3, impl=impl)


@pytest.mark.gpu
@pytest.mark.parametrize("impl", ["triton", "torch"])
def test_on_a_gpu_an_assignment_beyond_the_clusters_is_an_error_of_the_device(impl):
    script = (
        "import torch; from kernels.kmeans import cluster_sums; x = torch.ones(2, 2, device='cuda'); "
        f"cluster_sums(x, torch.tensor([0, 3], device='cuda'), 3, impl='{impl}'); torch.cuda.synchronize()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert "device-side assert" in done.stderr


def test_non_contiguous_and_stride_0_inputs():
    x, centroids = rows(23, 4), rows(5, 4, seed=1)
    strided = lloyd_step(x.T.contiguous().T, centroids.repeat(1, 2)[:, :4], impl="triton")
    torch.testing.assert_close(strided, lloyd_step(x, centroids, impl="triton"), rtol=0, atol=0)
    assert_as_near_as_the_reference(x[:1].expand(23, 4), centroids[:1].expand(3, 4))


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_input_same_bits(dtype):
    x, centroids = rows(211, 5, dtype), rows(6, 5, dtype, seed=1)
    first, second = (lloyd_step(x.clone(), centroids.clone(), impl="triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_not_finite_are_counted(value):
    x = rows(40, 3)
    x[7] = x[11, 2] = value
    with pytest.raises(ValueError, match="2 of the 40 rows are not finite"):
        kmeans(x, 4, impl="triton")


@pytest.mark.parametrize("spherical", [False, True])
def test_whole_clusterings_agree(spherical):
    x = torch.cat([rows(40, 3, seed=i) * 0.1 + rows(1, 3, seed=50 + i) * 4 for i in range(3)])
    settings = {"init": torch.cat([x[:4], -1e3 * x[:1]]), "iterations": 4, "spherical": spherical}
    fused, plain = (kmeans(x, 5, impl=impl, **settings) for impl in ("triton", "torch"))
    assert torch.equal(fused.assignment, plain.assignment)
    torch.testing.assert_close(fused.centroids, plain.centroids)
    assert fused.inertia == pytest.approx(plain.inertia)
    assert fused.iterations == plain.iterations


def test_momentum_update_agrees():
    centroids, x = rows(5, 3), rows(40, 3, seed=1)
    centroids[3:] = 1e3
    assignment = nearest_centroid(x, centroids, impl="triton")
    assignment[::3] = -1
    arguments = {"idle": torch.arange(5, device=DEVICE), "patience": 4}
    fused, plain = (
        momentum_centroid_update(centroids, x, assignment, 0.9, impl=impl, **arguments)
        for impl in ("triton", "torch")
    )
    torch.testing.assert_close(fused, plain)


def test_float64_is_refused():
    x = rows(6, 3).double()
    for function in (lloyd_step, nearest_centroid):
        with pytest.raises(NotImplementedError, match="no Triton form"):
            function(x.float(), x, impl="triton")


def test_compiles_into_one_graph():
    x, centroids = rows(33, 3), rows(5, 3, seed=1)

    def step(x, centroids):
        moved = lloyd_step(x, centroids, impl="triton")
        return *moved, *momentum_centroid_update(centroids, x, moved.assignment, 0.9, impl="triton")

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, centroids), step(x, centroids))


def test_operators_keep_their_contract():
    from kernels.kmeans import triton

    x, centroids = rows(11, 3), rows(5, 3, seed=1)
    torch.library.opcheck(triton.nearest_centroid, (x, centroids))
    order = torch.arange(11, device=DEVICE)
    begin, end = torch.tensor([[0, 4, 4], [4, 4, 11]], device=DEVICE)
    for weights in (None, order):
        torch.library.opcheck(triton.segment_sums, (x, order, begin, end, weights))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("count", "width", "clusters"),
    [(100_003, 256, 1024), (20_011, 100, 500), (9973, 1024, 4096), (997, 384, 65_536)],
)
def test_large_shapes(count, width, clusters, dtype):
    x, centroids = rows(count, width, dtype), rows(clusters, width, dtype, seed=1)
    fused, plain = (lloyd_step(x, centroids, impl=impl) for impl in ("triton", "torch"))
    assert excess(x, centroids, fused.assignment) <= 1e-6
    assert (fused.assignment != plain.assignment).sum() <= 2
    torch.testing.assert_close(fused.inertia, plain.inertia, rtol=1e-6, atol=0)
    sums, counts = cluster_sums(x, fused.assignment, clusters, impl="torch")
    assert torch.equal(fused.counts, counts)
    torch.testing.assert_close(fused.sums, sums, rtol=1e-10, atol=1e-10)


@pytest.mark.gpu
def test_offsets_beyond_32_bits():
    x = torch.randn(2**21 + 300, 1024, device=DEVICE, dtype=torch.bfloat16)
    centroids = rows(6, 1024, torch.bfloat16)
    fused = lloyd_step(x, centroids, impl="triton")
    tail = x[-300:].clone()
    assert torch.equal(fused.assignment[-300:], nearest_centroid(tail, centroids, impl="torch"))
    sums, counts = cluster_sums(x, fused.assignment, 6, impl="torch")
    assert torch.equal(fused.counts, counts)
    torch.testing.assert_close(fused.sums, sums, rtol=1e-9, atol=1e-7)
