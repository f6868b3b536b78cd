from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.kmeans import cluster_sums, lloyd_step, nearest_centroid, reference


def rows(count, width, seed=0, dtype=torch.float64):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


@given(count=st.integers(0, 41), width=st.integers(1, 7), clusters=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_step_equals_the_definition(count, width, clusters):
    x, centroids = rows(count, width), rows(clusters, width, seed=1)
    step = lloyd_step(x, centroids)
    squares = (x[:, None] - centroids).square().sum(dim=2)
    assert torch.equal(step.assignment, squares.argmin(dim=1))
    members = step.assignment[:, None] == torch.arange(clusters)
    assert torch.equal(step.counts, members.sum(dim=0))
    torch.testing.assert_close(step.sums, members.double().T @ x)
    torch.testing.assert_close(step.inertia, squares.min(dim=1).values.sum())
    assert torch.equal(nearest_centroid(x, centroids), step.assignment)


@given(weights=st.lists(st.integers(0, 4), min_size=1, max_size=30), clusters=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_a_weight_is_as_many_rows(weights, clusters):
    x, centroids, weights = rows(len(weights), 3), rows(clusters, 3, seed=1), torch.tensor(weights)
    before = x.clone()
    step = lloyd_step(x, centroids, weights=weights)
    repeated = lloyd_step(x.repeat_interleave(weights, dim=0), centroids)
    assert torch.equal(step.assignment, lloyd_step(x, centroids).assignment)
    assert torch.equal(step.counts, repeated.counts)
    torch.testing.assert_close(step.sums, repeated.sums)
    torch.testing.assert_close(step.inertia, repeated.inertia)
    sums, counts = cluster_sums(x, step.assignment, clusters, weights=weights)
    assert torch.equal(sums, step.sums)
    assert torch.equal(counts, step.counts)
    assert torch.equal(x, before)


def test_chunks_do_not_matter(monkeypatch):
    x, centroids, weights = rows(101, 3), rows(7, 3, seed=1), torch.arange(101)
    whole = lloyd_step(x, centroids, weights=weights)
    monkeypatch.setattr(reference, "CHUNK_ELEMENTS", 30)
    chunked = lloyd_step(x, centroids, weights=weights)
    assert torch.equal(chunked.assignment, whole.assignment)
    torch.testing.assert_close(chunked, whole)


def test_a_gpu_takes_a_gigabyte_at_a_time():
    rows_on_gpu = SimpleNamespace(shape=(10**6, 256), is_cuda=True)
    assert 4 * 4096 * reference.chunk_rows(rows_on_gpu, 4096) == 2**30


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_same_input_same_bits(dtype):
    x, centroids = rows(211, 5, dtype=dtype), rows(6, 5, seed=1, dtype=dtype)
    first, second = lloyd_step(x, centroids), lloyd_step(x.clone(), centroids.clone())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert [t.dtype for t in first] == [torch.int64, torch.float64, torch.int64, torch.float64]


def test_of_equal_centroids_the_first_wins():
    x = rows(5, 3)
    assert torch.equal(nearest_centroid(x, x[[0, 0, 0]]), torch.zeros(5, dtype=torch.int64))


def test_half_precision_rows_meet_float32_arithmetic():
    x, centroids = rows(64, 8, dtype=torch.float16), rows(9, 8, seed=1, dtype=torch.float32)
    expected = torch.cdist(x.double(), centroids.double()).argmin(dim=1)
    assert torch.equal(nearest_centroid(x, centroids), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest_centroid(x.float(), centroids), expected)


def test_non_contiguous_inputs_change_nothing():
    x, centroids = rows(23, 4), rows(5, 4, seed=1)
    torch.testing.assert_close(
        lloyd_step(x.T.contiguous().T, centroids.repeat(1, 2)[:, :4]), lloyd_step(x, centroids)
    )


def test_negative_assignment_belongs_to_no_cluster():
    sums, counts = cluster_sums(torch.ones(4, 2), torch.tensor([-1, 0, 2, -1]), 3)
    assert counts.tolist() == [1, 0, 1]
    assert sums.tolist() == [[1, 1], [0, 0], [1, 1]]


@pytest.mark.parametrize("beyond", [3, 4])
def test_an_assignment_beyond_the_clusters_is_an_error(beyond):
    with pytest.raises(RuntimeError, match="out of bounds"):
        cluster_sums(torch.ones(2, 2), torch.tensor([0, beyond]), 3)


@pytest.mark.gpu
def test_same_input_same_bits_on_cuda():
    x, centroids = rows(5003, 17, dtype=torch.float32).cuda(), rows(7, 17, seed=1, dtype=torch.float32).cuda()
    first, *others = (lloyd_step(x, centroids, impl="torch") for _ in range(4))
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))
    torch.testing.assert_close(first.sums.cpu(), lloyd_step(x.cpu(), centroids.cpu()).sums)


def test_unfit_arguments_are_named():
    x = rows(6, 3)
    with pytest.raises(ValueError, match=r"K >= 1, 3.*\(2, 4\)"):
        nearest_centroid(x, torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"K >= 1, 3.*\(0, 3\)"):
        lloyd_step(x, x[:0])
    with pytest.raises(ValueError, match=r"torch.int64"):
        nearest_centroid(x.long(), x)
    with pytest.raises(ValueError, match=r"centroids.*torch.int64"):
        nearest_centroid(x, x.long())
    with pytest.raises(ValueError, match=r"int64.*\(6,\).*torch.int32.*\(5,\)"):
        cluster_sums(x, torch.zeros(5, dtype=torch.int32), 2)
    with pytest.raises(ValueError, match=r"clusters.*0"):
        cluster_sums(x, torch.zeros(6, dtype=torch.int64), 0)
    with pytest.raises(ValueError, match=r"weights.*int64.*\(6,\).*torch.int64.*\(5,\)"):
        lloyd_step(x, x, weights=torch.ones(5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"weights.*int64.*torch.float32"):
        cluster_sums(x, torch.zeros(6, dtype=torch.int64), 2, weights=torch.ones(6))


def test_inertia_is_never_negative():
    """Rows that are all alike, where it is what rounding leaves."""
    for seed in range(30):
        row = rows(1, 3 + seed, seed=seed, dtype=torch.float32)
        assert lloyd_step(row.expand(10, -1), row).inertia >= 0
