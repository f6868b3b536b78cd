"""One tree, cut at any number of clusters."""

import pytest
import torch
import torch.nn.functional as F

from hcl.explore.hierarchy import Hierarchy


@pytest.fixture
def tokens() -> torch.Tensor:
    """Twelve tokens around each of three directions."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.randn(3, 12, 8, generator=generator)
    return F.normalize((torch.eye(8)[:3, None] + noise).flatten(0, 1), dim=1)


@pytest.fixture
def hierarchy(tokens) -> Hierarchy:
    return Hierarchy.of(tokens, 9, seed=1)


def test_the_right_cut_finds_the_groups(tokens, hierarchy):
    cut = hierarchy.cut(3)
    groups = cut.of_leaf[hierarchy.leaf_of(tokens)].view(3, 12)
    assert all(len(group.unique()) == 1 for group in groups)
    assert len(groups.unique()) == 3
    assert cut.centroids.shape == (3, 8)
    order = torch.searchsorted(cut.names, groups[:, 0].contiguous())
    torch.testing.assert_close(cut.centroids[order], torch.eye(8)[:3], atol=0.1, rtol=0)


def test_more_clusters_divide_the_ones_before(hierarchy):
    before = hierarchy.cut(2)
    for clusters in range(3, 10):
        cut = hierarchy.cut(clusters)
        assert len(cut.names) == clusters
        for name in cut.names:
            assert len(before.of_leaf[cut.of_leaf == name].unique()) == 1
        before = cut


def test_a_cluster_that_stays_keeps_its_name(hierarchy):
    for clusters in range(2, 9):
        names = [set(hierarchy.cut(number).names.tolist()) for number in (clusters, clusters + 1)]
        assert names[0] < names[1]


def test_every_leaf_is_a_cluster_in_the_end(hierarchy):
    assert hierarchy.cut(9).of_leaf.tolist() == list(range(9))


@pytest.mark.parametrize("clusters", [1, 10])
def test_other_numbers_are_refused(hierarchy, clusters):
    with pytest.raises(ValueError, match="must lie between 2 and 9"):
        hierarchy.cut(clusters)


def test_one_token_makes_no_hierarchy(tokens):
    with pytest.raises(ValueError, match="1 tokens are too few for a hierarchy"):
        Hierarchy.of(tokens[:1], 4, seed=0)
