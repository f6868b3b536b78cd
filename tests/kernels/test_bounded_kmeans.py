"""k-means that passes over rows whose nearest centroid cannot have changed, beside the plain one."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.kmeans import bounds, kmeans, reference
from kernels.kmeans.bounds import BoundedSteps


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def clustered(count=1500, width=6, seed=0, dtype=torch.float32):
    """Rows around 12 centres, with tails between them."""
    centres = 4 * normal(12, width, seed=seed + 1, dtype=dtype)
    which = torch.randint(12, (count,), generator=torch.Generator().manual_seed(seed))
    return centres[which] + normal(count, width, seed=seed, dtype=dtype)


ROWS = {
    "random": normal(700, 5),
    "clustered": clustered(),
    "float64": clustered(400, dtype=torch.float64),
    "duplicates": clustered(30).repeat(20, 1),
    "ties": torch.cartesian_prod(*[torch.arange(4.0)] * 4),
    "one row many times": torch.ones(90, 3),
    "far from the origin": clustered() + 1e4,
    "zeros": torch.zeros(60, 2),
    "lengths apart": clustered(300) * torch.logspace(-12, 12, 300)[:, None],
    "one far row": torch.cat([clustered(300), torch.full((1, 6), 1e20)]),
    "too small to square": clustered(300) * 1e-21,
    "wide": clustered(400, width=150),
}


@pytest.fixture
def plain_and_bounded(monkeypatch):
    """`plain_and_bounded(x, K, ...)` runs kmeans both ways, rows surveyed in several parts."""
    monkeypatch.setattr(bounds, "SURVEY_ROWS", 128)
    monkeypatch.setattr(bounds, "SUM_ROWS", 100)
    monkeypatch.setattr(bounds, "SAMPLED", 4)

    def run(*args, **keywords):
        results = []
        for least in (math.inf, 0):
            monkeypatch.setattr(bounds, "LEAST_SCORES", least)
            results.append(kmeans(*args, **keywords))
        return results

    return run


def assert_same(plain, bounded):
    assert torch.equal(bounded.assignment, plain.assignment)
    assert bounded.iterations == plain.iterations
    torch.testing.assert_close(bounded.centroids, plain.centroids, rtol=1e-6, atol=0)
    assert bounded.inertia == pytest.approx(plain.inertia, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("spherical", [False, True])
def test_the_same_clustering_as_plain(name, spherical, plain_and_bounded):
    x = ROWS[name]
    for clusters in (1, 2, 13, 40):
        assert_same(*plain_and_bounded(x, clusters, iterations=40, spherical=spherical))


def test_restarts_and_plus_plus(plain_and_bounded):
    assert_same(*plain_and_bounded(clustered(), 25, iterations=30, restarts=3, init="k-means++"))


def test_empty_clusters_are_split_alike(plain_and_bounded):
    x = clustered()
    start = torch.cat([x[:9], 1e3 + x[:4], -1e3 * x[:3]])
    assert_same(*plain_and_bounded(x, 16, init=start, iterations=30))


def test_as_many_clusters_as_rows(plain_and_bounded):
    assert_same(*plain_and_bounded(normal(17, 3), 17, iterations=5))


@pytest.mark.parametrize("sizes", [(750, 750), (1, 1499), (0, 1500), (400, 333, 767)])
@pytest.mark.parametrize("spherical", [False, True])
def test_shards_give_the_plain_clustering_of_the_whole(sizes, spherical, shards, monkeypatch):
    x = clustered()
    keywords = {"init": torch.cat([x[:20], -1e3 * x[:2]]), "iterations": 25, "spherical": spherical}
    whole = kmeans(x, 22, **keywords)
    monkeypatch.setattr(bounds, "LEAST_SCORES", 0)
    parts = x.split(sizes)
    results = shards(len(sizes)).run(
        lambda rank, reduce, _: kmeans(parts[rank], 22, reduce=reduce, **keywords)
    )
    assert torch.equal(torch.cat([result.assignment for result in results]), whole.assignment)
    for result in results:
        assert torch.equal(result.centroids, results[0].centroids)
        torch.testing.assert_close(result.centroids, whole.centroids, rtol=1e-6, atol=1e-6)
        assert result.inertia == pytest.approx(whole.inertia, rel=1e-9)


@given(
    count=st.integers(1, 60),
    width=st.integers(1, 6),
    clusters=st.integers(1, 12),
    rounded=st.booleans(),
    moves=st.lists(st.sampled_from([0.0, 0.01, 0.25, 1.0, 4.0]), min_size=1, max_size=6),
    weigh=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_step_equals_the_plain_step_however_centroids_move(
    count, width, clusters, rounded, moves, weigh
):
    def drawn(rows, seed):
        # Rounded, all scores are exact, and many of them equal.
        values = 2 * normal(rows, width, seed=seed)
        return (4 * values).round() / 4 if rounded else values

    x, centroids = drawn(count, 0), drawn(clusters, 1)
    weights = torch.arange(count) % 4 if weigh else None
    steps = BoundedSteps(x, weights)
    for seed, size in enumerate([0.0, *moves]):
        # Some centroids move far, the others a hundredth of that or not at all.
        directions = size * drawn(clusters, seed + 2)
        directions[1::3] /= 100
        centroids = centroids + ((4 * directions).round() / 4 if rounded else directions)
        bounded, plain = steps(centroids), reference.lloyd_step(x, centroids, weights)
        assert torch.equal(bounded.assignment, plain.assignment)
        assert torch.equal(bounded.counts, plain.counts)
        torch.testing.assert_close(bounded.sums, plain.sums, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(bounded.inertia, plain.inertia, rtol=1e-9, atol=1e-9)


def test_an_earlier_step_keeps_its_assignment():
    x = clustered()
    steps = BoundedSteps(x)
    first = steps(x[:10])
    kept = first.assignment.clone()
    assert not torch.equal(steps(x[10:20]).assignment, kept)
    assert torch.equal(first.assignment, kept)


def test_most_rows_are_passed_over_once_centroids_hardly_move(monkeypatch):
    x = clustered(4000)
    start = kmeans(x, 12, init="k-means++", iterations=10).centroids
    searched = []
    search = BoundedSteps._search

    def counting(self, rows, current):
        searched.append(len(rows))
        return search(self, rows, current)

    monkeypatch.setattr(BoundedSteps, "_search", counting)
    steps = BoundedSteps(x)
    steps(start)
    steps(start + 1e-3 * normal(12, 6))
    jumped = start.clone()
    jumped[3] += 1
    steps(jumped)
    assert searched[0] == 4000
    assert searched[1] < 100
    assert searched[2] < 1500


def test_the_same_bits_every_time(monkeypatch):
    monkeypatch.setattr(bounds, "LEAST_SCORES", 0)
    x = clustered()
    first, again = (kmeans(rows, 30, iterations=20) for rows in (x, x.clone()))
    assert all(torch.equal(a, b) for a, b in zip(first[:2], again[:2], strict=True))
    assert first.inertia == again.inertia


def test_rows_that_are_not_finite_are_searched_every_time(plain_and_bounded):
    x = clustered(300)
    x[7, 2], x[9, 1] = torch.nan, torch.inf
    start = F.normalize(x[20:32])
    steps, plain = BoundedSteps(x), None
    for shift in (0, 1e-3, 1e-3):
        start = start + shift
        plain = reference.nearest_centroid(x, start)
        assert torch.equal(steps(start).assignment, plain)


def test_half_precision_rows_and_strides(plain_and_bounded):
    assert_same(*plain_and_bounded(clustered(500).half(), 9))
    assert_same(*plain_and_bounded(clustered(500).T.contiguous().T, 9))


def test_a_far_row_leaves_nothing_behind_in_a_sum():
    x = torch.tensor([[1.0], [2.0], [1e20]])
    steps = BoundedSteps(x)
    for start in ([[1e19], [-1e21]], [[1.5], [1e20]]):
        found = steps(torch.tensor(start))
        torch.testing.assert_close(found.sums, reference.lloyd_step(x, torch.tensor(start)).sums)
    assert found.sums[0].item() == 3
