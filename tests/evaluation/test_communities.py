"""The graph, its communities, and how fewer communities than classes are matched."""

import gc
import sys

import pytest
import torch

from hcl.evaluation.communities import communities, edges
from hcl.evaluation.matching import hungarian
from hcl.evaluation.metrics import ClusteringScores

P = torch.tensor(
    [
        [0.00, 0.50, 0.03, 0.02, 0.00],
        [0.40, 0.00, 0.60, 0.00, 0.00],
        [0.03, 0.70, 0.00, 0.00, 0.00],
        [0.90, 0.00, 0.00, 0.00, 0.00],
        [0.00, 0.00, 0.00, 0.00, 0.00],
    ],
    dtype=torch.float64,
)


def blocks(count: int, size: int, lonely: int = 0) -> torch.Tensor:
    """Ids that lie beside those of their own block most of the time, and lonely ones beside nobody."""
    ids = count * size
    own = torch.block_diag(*[torch.ones(size, size)] * count).double()
    matrix = 0.001 + own / size
    matrix.fill_diagonal_(0)
    return torch.nn.functional.pad(matrix, (0, lonely, 0, lonely)).view(ids + lonely, -1)


def test_edges_need_both_directions_and_weigh_the_lesser():
    assert edges(P) == [(0, 1, 0.4), (0, 2, 0.03), (1, 2, 0.6)]
    assert edges(P, 0.1) == [(0, 1, 0.4), (1, 2, 0.6)]


def test_ids_that_never_meet_have_no_edge_even_without_a_threshold():
    assert (3, 4) not in [edge[:2] for edge in edges(P, 0.0)]


def test_blocks_become_communities():
    pytest.importorskip("infomap")
    found = communities(blocks(20, 8), seed=3)
    assert found.dtype == torch.int64
    members = found.view(20, 8)
    assert (members == members[:, :1]).all()
    assert sorted(members[:, 0].tolist()) == list(range(20))


def test_ids_without_an_edge_share_the_last_community():
    pytest.importorskip("infomap")
    found = communities(blocks(20, 8, lonely=3))
    assert found[160:].tolist() == [20, 20, 20]
    assert torch.equal(found[:160], communities(blocks(20, 8)))


def test_a_graph_without_edges_is_one_community():
    assert communities(torch.zeros(4, 4)).tolist() == [0, 0, 0, 0]


def test_a_seed_always_gives_the_same_communities():
    pytest.importorskip("infomap")
    noise = torch.rand(60, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 10
    assert torch.equal(communities(noise, seed=5), communities(noise, seed=5))


def test_infomap_says_nothing(capfd, recwarn):
    pytest.importorskip("infomap")
    # What other tests have left open is told when it is collected, which may be at any time.
    gc.collect()
    recwarn.clear()
    communities(blocks(20, 8))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_without_infomap_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "infomap", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[evaluation\]'"):
        communities(blocks(2, 3))


def test_fewer_communities_than_classes_leave_classes_unmatched():
    confusion = torch.tensor([[1, 0, 8, 0], [0, 9, 2, 0]])
    assert hungarian(confusion).tolist() == [2, 1]
    metric = ClusteringScores(2, 4, matching="hungarian")
    cluster, class_ = confusion.nonzero(as_tuple=True)
    pixels = confusion[cluster, class_]
    metric.update(cluster.repeat_interleave(pixels), class_.repeat_interleave(pixels).to(torch.uint8))
    scores = metric.compute()
    assert scores.tp.tolist() == [0, 9, 8, 0]
    assert scores.fn.tolist() == [1, 0, 2, 0]
    assert scores.present.tolist() == [True, True, True, False]


def test_infomap_is_told_what_was_asked_for(monkeypatch):
    infomap = pytest.importorskip("infomap")
    told, options = [], infomap.Options

    def noted(**settings):
        told.append(settings)
        return options(**settings)

    monkeypatch.setattr(infomap, "Options", noted)
    communities(blocks(3, 4), seed=7, markov_time=1.5, preferred_modules=2)
    asked_for = {"seed": 7, "markov_time": 1.5, "preferred_number_of_modules": 2}
    assert told == [{"two_level": True, "flow_model": "undirected", "silent": True, **asked_for}]
