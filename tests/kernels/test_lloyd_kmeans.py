import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.kmeans import NotFiniteError, bounds, initial_centroids, kmeans, nearest_centroid


def blobs(clusters=4, each=30, width=3, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    centres = 20 * torch.randn(clusters, 1, width, generator=generator, dtype=torch.float64)
    points = centres + torch.randn(clusters, each, width, generator=generator, dtype=torch.float64)
    return points.flatten(0, 1)[torch.randperm(clusters * each, generator=generator)].to(dtype)


def inertia(x, result):
    return (x.double() - result.centroids[result.assignment].double()).square().sum().item()


@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_result_is_consistent_and_a_fixed_point(init):
    x = blobs()
    result = kmeans(x, 4, init=init, iterations=100)
    assert result.iterations < 100
    assert torch.equal(result.assignment, nearest_centroid(x, result.centroids))
    assert result.inertia == pytest.approx(inertia(x, result), rel=1e-6)
    means = torch.stack([x[result.assignment == j].mean(dim=0) for j in range(4)])
    torch.testing.assert_close(result.centroids, means)


def test_restarts_keep_the_best_run():
    x = blobs(clusters=8, each=9)
    one, many = kmeans(x, 8, seed=3), kmeans(x, 8, seed=3, restarts=8)
    assert many.inertia < one.inertia
    assert many.inertia == pytest.approx(inertia(x, many), rel=1e-5)


def test_the_best_of_several_starts_is_that_of_as_many_runs():
    x = blobs(clusters=8, each=9)
    starts = torch.stack([x[8 * run : 8 * run + 8] for run in range(4)])
    runs = [kmeans(x, 8, init=start) for start in starts]
    best = min(runs, key=lambda run: run.inertia)
    assert len({run.inertia for run in runs}) > 1
    found = kmeans(x, 8, init=starts)
    assert torch.equal(found.centroids, best.centroids)
    assert found.inertia == best.inertia


@pytest.mark.parametrize("least_scores", [0, bounds.LEAST_SCORES])
@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_a_weight_is_as_many_rows(monkeypatch, init, spherical, least_scores):
    monkeypatch.setattr(bounds, "LEAST_SCORES", least_scores)
    x = blobs(clusters=6, each=40, dtype=torch.float64)
    weights = torch.arange(len(x)) % 7
    settings = {"init": init, "spherical": spherical, "restarts": 2, "seed": 5}
    weighted = kmeans(x, 9, weights=weights, **settings)
    repeated = kmeans(x.repeat_interleave(weights, dim=0), 9, **settings)
    once = kmeans(x, 9, **settings)
    torch.testing.assert_close(weighted.centroids, repeated.centroids)
    assert torch.equal(weighted.assignment.repeat_interleave(weights), repeated.assignment)
    assert weighted.inertia == pytest.approx(repeated.inertia)
    assert weighted.iterations == repeated.iterations
    assert not torch.allclose(weighted.centroids, once.centroids)


def test_weights_are_counted_where_rows_are():
    x, weights = torch.eye(3), torch.tensor([0, 1, 2])
    drawn = initial_centroids(x, 3, "random", torch.Generator(), weights=weights)
    assert drawn.sum(dim=0).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="4 clusters of 3 rows"):
        kmeans(x, 4, weights=weights)
    with pytest.raises(ValueError, match="negative, got -1"):
        kmeans(x, 2, weights=weights - 1)


def test_plus_plus_on_the_sphere_sees_directions_alone():
    """Three directions; along each, rows whose lengths differ far more than their directions do."""
    generator = torch.Generator().manual_seed(0)
    x = torch.eye(3).repeat(40, 1) * torch.logspace(-3, 3, 120)[:, None]
    for _ in range(10):
        drawn = initial_centroids(x, 3, "k-means++", generator, spherical=True)
        assert sorted(drawn.argmax(dim=1).tolist()) == [0, 1, 2]
        assert (drawn[:, None] == x).all(dim=2).any(dim=1).all()  # rows as they are


@pytest.mark.parametrize("seed", range(5))
def test_plus_plus_finds_every_far_blob(seed):
    far = torch.tensor([-3e3, -1e3, 1e3, 3e3])
    x = (far[:, None] + torch.rand(4, 25, generator=torch.Generator().manual_seed(0))).view(-1, 1)
    result = kmeans(x, 4, init="k-means++", seed=seed, iterations=1)
    torch.testing.assert_close(result.centroids[:, 0].sort().values, far, rtol=0, atol=1)


@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_seed_decides_everything(init):
    x = blobs()
    first, again, other = (kmeans(x, 5, seed=seed, init=init, iterations=1) for seed in (1, 1, 2))
    assert torch.equal(first.centroids, again.centroids)
    assert torch.equal(first.assignment, again.assignment)
    assert not torch.equal(first.centroids, other.centroids)


def test_iterations_are_a_limit():
    x = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    start = x[:9]
    short, long = kmeans(x, 9, init=start, iterations=2), kmeans(x, 9, init=start, iterations=4)
    assert (short.iterations, long.iterations) == (2, 4)
    assert short.inertia > long.inertia
    assert torch.equal(kmeans(x, 9, init=short.centroids, iterations=2).centroids, long.centroids)


def test_stops_when_nothing_moves():
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    result = kmeans(x, 2, init=torch.tensor([[0.5], [10.5]]), iterations=50)
    assert result.iterations == 1
    assert result.centroids.tolist() == [[0.5], [10.5]]
    assert result.assignment.tolist() == [0, 0, 1, 1]


def test_empty_clusters_take_half_of_the_largest():
    x = torch.cat([torch.arange(1.0, 10.0)[:, None], torch.tensor([[100.0]])])
    start = torch.tensor([[5.0], [100.0], [1000.0], [2000.0]])
    result = kmeans(x, 4, init=start, iterations=50)
    assert result.assignment.unique().tolist() == [0, 1, 2, 3]


def test_every_empty_cluster_takes_from_the_one_largest_by_then():
    x = torch.tensor([[1.0]] * 10 + [[8.0]] * 6)
    start = torch.tensor([[1.0], [8.0], [1e3], [2e3]])
    result = kmeans(x, 4, init=start, iterations=1)
    assert result.centroids[:, 0].round().tolist() == [1, 8, 1, 8]
    assert len(result.centroids.unique()) == 4


def test_empty_clusters_on_the_sphere():
    angles = torch.linspace(0.1, 1.2, 20)
    x = torch.stack([angles.cos(), angles.sin()], dim=1)
    result = kmeans(x, 2, init=torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), spherical=True, iterations=50)
    assert torch.equal(result.assignment.bincount(), torch.tensor([10, 10]))


def test_more_clusters_than_distinct_rows_ends():
    x = torch.ones(6, 2)
    for init in ("random", "k-means++"):
        result = kmeans(x, 3, init=init)
        assert result.centroids.isfinite().all()
        assert result.inertia == pytest.approx(0, abs=1e-5)


def test_spherical_ignores_length():
    x = blobs()
    scaled = x * torch.rand(len(x), 1).add(0.5)
    result, same = (kmeans(rows, 4, spherical=True, seed=1) for rows in (x, scaled))
    assert torch.equal(result.assignment, same.assignment)
    torch.testing.assert_close(result.centroids.norm(dim=1), torch.ones(4))
    cosine = F.normalize(x, dim=1) @ result.centroids.T
    assert torch.equal(result.assignment, cosine.argmax(dim=1))


@pytest.mark.parametrize("sizes", [(60, 60), (1, 119), (0, 120), (40, 33, 47)])
@pytest.mark.parametrize("spherical", [False, True])
def test_shards_equal_one_process(sizes, spherical, shards):
    x = blobs()
    # The last two start far from every row: the shards must split the same clusters as one process.
    start = torch.cat([x[:4], -1e3 * x[:2]])
    settings = {"init": start, "iterations": 6, "spherical": spherical}
    whole = kmeans(x, 6, **settings)
    parts = x.split(sizes)
    results = shards(len(sizes)).run(
        lambda rank, reduce, _: kmeans(parts[rank], 6, reduce=reduce, **settings)
    )
    assert torch.equal(torch.cat([result.assignment for result in results]), whole.assignment)
    for result in results:
        assert torch.equal(result.centroids, results[0].centroids)
        torch.testing.assert_close(result.centroids, whole.centroids, rtol=1e-6, atol=1e-6)
        assert result.inertia == pytest.approx(whole.inertia, rel=1e-9)
        assert result.iterations == whole.iterations


@given(count=st.integers(1, 20), width=st.integers(1, 5), data=st.data())
@settings(max_examples=20, deadline=None)
def test_any_shape(count, width, data):
    clusters = data.draw(st.integers(1, count))
    init = data.draw(st.sampled_from(["random", "k-means++"]))
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(count)).half()
    result = kmeans(x, clusters, init=init, iterations=5)
    assert result.centroids.shape == (clusters, width)
    assert result.centroids.dtype == torch.float32
    assert result.assignment.shape == (count,)
    assert result.centroids.isfinite().all()


@pytest.mark.parametrize("init", ["random", "k-means++", blobs()[:4]])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_are_counted(init, value):
    x = blobs()
    x[3, 1] = x[7] = value
    with pytest.raises(NotFiniteError, match=r"^2 of the 120 rows are not finite$"):
        kmeans(x, 4, init=init)


def test_rows_that_are_not_finite_are_counted_where_bounds_pass_over_rows():
    x = torch.rand(2**11, 3, generator=torch.Generator().manual_seed(0))
    assert len(x) * 512 >= bounds.LEAST_SCORES
    x[5:9] = torch.nan
    with pytest.raises(NotFiniteError, match="4 of the 2048 rows"):
        kmeans(x, 512)


def test_first_centroids_that_are_not_finite_are_told_from_rows():
    with pytest.raises(NotFiniteError, match="120 rows are finite, but the first centroids"):
        kmeans(blobs(), 2, init=torch.tensor([[0.0, 0.0, torch.nan], [1.0, 1.0, 1.0]]))


def test_all_shards_raise_alike_where_one_has_rows_that_are_not_finite(shards):
    x = blobs()
    x[100:103, 2] = torch.nan

    def shard(rank, reduce, _):
        with pytest.raises(NotFiniteError, match="3 of the 120 rows") as raised:
            kmeans(x[60 * rank :][:60], 4, init=x[:4], reduce=reduce)
        return raised.value.rows

    assert shards(2).run(shard) == [3, 3]


def test_too_few_rows(shards):
    with pytest.raises(ValueError, match="7 clusters of 6 rows"):
        kmeans(torch.rand(6, 2), 7)

    def shard(rank, reduce, _):
        with pytest.raises(ValueError, match="7 clusters of 6 rows"):
            kmeans(torch.rand(3, 2), 7, init=torch.rand(7, 2), reduce=reduce)

    shards(2).run(shard)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clusters": 0}, "clusters.*0"),
        ({"iterations": 0}, "iterations.*0"),
        ({"restarts": -1}, "restarts.*-1"),
        ({"init": "first"}, "init.*'first'"),
        ({"init": torch.ones(3, 2)}, "3 centroids for 2 clusters"),
        ({"init": torch.ones(2, 3)}, r"\(2, 3\)"),
        ({"init": torch.ones(2, 2), "restarts": 2}, "restarts=2"),
        ({"init": torch.ones(4, 3, 2)}, "3 centroids for 2 clusters"),
        ({"init": torch.ones(0, 2, 2)}, "of no run"),
        ({"reduce": lambda tensor: tensor}, "init='random'"),
        ({"x": torch.ones(8)}, r"\(8,\)"),
        ({"x": torch.ones(8, 2).long()}, r"torch.int64"),
    ],
)
def test_unfit_arguments_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        kmeans(**{"x": torch.rand(8, 2), "clusters": 2, **settings})


def test_a_cluster_of_one_row_moves_to_it():
    result = kmeans(torch.tensor([[0.0], [1.0], [10.0]]), 2, init=torch.tensor([[0.25], [8.0]]), iterations=1)
    assert result.centroids.tolist() == [[0.5], [10.0]]


def test_a_single_row_that_changes_its_cluster_keeps_it_going():
    x = torch.tensor([[2.0], [3.0], [8.0], [11.0], [18.0], [19.0]])
    result = kmeans(x, 2, init=x[:2], iterations=50)  # of which each changes one row's after the first
    assert result.assignment.tolist() == [0, 0, 0, 1, 1, 1]
    assert result.centroids[:, 0].tolist() == pytest.approx([13 / 3, 16])


def test_the_length_of_a_start_does_not_change_spherical_clusters():
    x = blobs()
    start = x[:4]
    lengths = torch.tensor([[1.0], [100.0], [1e-3], [7.0]])
    short, long = (kmeans(x, 4, init=init, spherical=True, iterations=1) for init in (start, lengths * start))
    torch.testing.assert_close(short.centroids, long.centroids)


def test_squared_distances_beyond_the_largest_number_are_told_from_rows():
    x = torch.tensor([[1e200], [-1e200]], dtype=torch.float64)
    with pytest.raises(NotFiniteError, match="2 rows are finite"):
        kmeans(x, 1, init=torch.zeros(1, 1))


def test_plus_plus_draws_in_proportion_to_squared_distances():
    x = blobs(clusters=3, each=5).double()
    for seed in range(30):
        drawn = initial_centroids(x, 4, "k-means++", torch.Generator().manual_seed(seed))
        draws = torch.rand(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        distance, expected = torch.ones(len(x), dtype=torch.float64), []
        for draw in draws:
            share = distance.cumsum(dim=0) / distance.sum()
            expected.append(x[int((share <= draw).sum())])
            distance = torch.stack([(x - row).square().sum(dim=1) for row in expected]).amin(dim=0)
        torch.testing.assert_close(drawn, torch.stack(expected), rtol=0, atol=0)


def test_random_starts_are_distinct_rows():
    x = torch.arange(50.0)[:, None]
    drawn = initial_centroids(x, 50, "random", torch.Generator().manual_seed(0))
    assert torch.equal(drawn.sort(dim=0).values, x)
