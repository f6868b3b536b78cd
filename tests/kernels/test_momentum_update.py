import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.kmeans import momentum_centroid_update, nearest_centroid
from kernels.kmeans.momentum import RESEEDS


def case(tokens=40, clusters=5, width=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centroids = torch.randn(clusters, width, generator=generator)
    x = torch.randn(tokens, width, generator=generator)
    return centroids, x, nearest_centroid(x, centroids)


def by_formula(centroids, tokens, assignment, momentum):
    updated = centroids.clone()
    for j in set(assignment.tolist()) - {-1}:
        updated[j] = momentum * centroids[j] + (1 - momentum) * tokens[assignment == j].mean(dim=0)
    return updated


@given(
    tokens=st.integers(0, 30),
    clusters=st.integers(1, 7),
    width=st.integers(1, 5),
    momentum=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    foreign=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_moves_by_the_formula(tokens, clusters, width, momentum, foreign):
    centroids, x, assignment = case(tokens, clusters, width)
    if foreign:
        assignment[::3] = -1
    updated, idle = momentum_centroid_update(centroids, x, assignment, momentum)
    torch.testing.assert_close(updated, by_formula(centroids, x, assignment, momentum))
    met = torch.isin(torch.arange(clusters), assignment)
    assert torch.equal(updated[~met], centroids[~met])
    assert torch.equal(idle, (~met).long())


def test_idle_counts_steps_without_token():
    centroids, x = torch.eye(3), torch.eye(3)[:1]
    _, idle = momentum_centroid_update(centroids, x, torch.tensor([0]), 0.9, idle=torch.tensor([4, 4, 0]))
    assert idle.tolist() == [0, 5, 1]


def test_idle_clusters_take_the_worst_explained_tokens():
    centroids = torch.zeros(4, 2)
    x = torch.tensor([[1.0, 0.0], [9.0, 0.0], [3.0, 0.0], [50.0, 0.0]])
    assignment = torch.tensor([0, 0, 0, -1])
    before = torch.tensor([7, 2, 3, 0])
    updated, idle = momentum_centroid_update(centroids, x, assignment, 0.5, idle=before, patience=3)
    assert updated[:, 0].tolist() == pytest.approx([13 / 6, 3, 9, 0])
    assert idle.tolist() == [0, 0, 0, 1]


def test_without_patience_nothing_is_seeded():
    centroids, x, assignment = case(clusters=3)
    assignment[:] = 0
    updated, idle = momentum_centroid_update(centroids, x, assignment, 0.9, idle=torch.full((3,), 10**6))
    assert torch.equal(updated[1:], centroids[1:])
    assert idle.tolist() == [0, 10**6 + 1, 10**6 + 1]


def test_perfectly_explained_tokens_seed_nothing():
    centroids = torch.eye(3)
    x, assignment = centroids[[0, 0]], torch.tensor([0, 0])
    updated, idle = momentum_centroid_update(
        centroids, x, assignment, 0.9, idle=torch.full((3,), 9), patience=2
    )
    assert torch.equal(updated, centroids)
    assert idle.tolist() == [0, 10, 10]


def test_at_most_a_fixed_number_of_different_tokens():
    clusters = RESEEDS + 6
    centroids = torch.zeros(clusters, 2)
    x = torch.arange(1.0, 61.0).view(30, 2)
    assignment, idle = torch.zeros(30, dtype=torch.int64), torch.full((clusters,), 5)
    updated, idle = momentum_centroid_update(centroids, x, assignment, 1.0, idle=idle, patience=6)
    seeded = updated[1:][idle[1:] == 0]
    assert len(seeded) == RESEEDS
    assert torch.equal(seeded.sort(dim=0).values, x[-RESEEDS:])
    assert (idle > 0).sum() == clusters - 1 - RESEEDS


@pytest.mark.parametrize("sizes", [(20, 20), (1, 39), (0, 40), (13, 20, 7)])
def test_ranks_equal_one_process(sizes, shards):
    centroids, x, assignment = case()
    centroids[3:] = 1e3
    assignment = nearest_centroid(x, centroids).where(torch.arange(40) % 4 > 0, -1)
    idle = torch.tensor([0, 0, 0, 8, 9])
    whole = momentum_centroid_update(centroids, x, assignment, 0.9, idle=idle, patience=9)
    assert whole.idle.tolist()[3:] == [0, 0]
    tokens, own = x.split(sizes), assignment.split(sizes)
    results = shards(len(sizes)).run(
        lambda rank, reduce, gather: momentum_centroid_update(
            centroids, tokens[rank], own[rank], 0.9, idle=idle, patience=9, reduce=reduce, gather=gather
        )
    )
    for result in results:
        torch.testing.assert_close(result.centroids, whole.centroids, rtol=1e-6, atol=1e-7)
        assert torch.equal(result.centroids, results[0].centroids)
        assert torch.equal(result.idle, whole.idle)


def test_inputs_stay_as_they_are():
    centroids, x, assignment = case()
    idle = torch.arange(5)
    before = [t.clone() for t in (centroids, x, assignment, idle)]
    momentum_centroid_update(centroids, x, assignment, 0.5, idle=idle, patience=1)
    assert all(torch.equal(a, b) for a, b in zip(before, (centroids, x, assignment, idle), strict=True))


def test_compiles_into_one_graph():
    centroids, x, assignment = case()
    arguments = {"idle": torch.arange(5), "patience": 2}
    compiled = torch.compile(momentum_centroid_update, fullgraph=True, backend="aot_eager")
    expected = momentum_centroid_update(centroids, x, assignment, 0.9, **arguments)
    torch.testing.assert_close(compiled(centroids, x, assignment, 0.9, **arguments), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.5}, "momentum.*1.5"),
        ({"idle": torch.zeros(4, dtype=torch.int64)}, r"\(5,\).*\(4,\)"),
        ({"idle": torch.zeros(5)}, "torch.float32"),
        ({"patience": 0}, "patience.*0"),
        ({"patience": 3, "reduce": lambda tensor: tensor}, "gather"),
        ({"tokens": torch.ones(40, 2)}, r"\(5, 3\)"),
        ({"assignment": torch.zeros(39, dtype=torch.int64)}, r"\(40,\).*\(39,\)"),
    ],
)
def test_unfit_arguments_are_named(settings, message):
    centroids, tokens, assignment = case()
    arguments = {"tokens": tokens, "assignment": assignment, "momentum": 0.9, **settings}
    with pytest.raises(ValueError, match=message):
        momentum_centroid_update(centroids, **arguments)
