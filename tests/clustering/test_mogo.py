import pytest
import torch

from hcl.clustering.mogo import Centroids, ClusteringConfig, MoGoClustering
from hcl.clustering.sampling import BankRows
from hcl.distributed import World
from tests.clustering.support import image_rows

ALONE = World.alone(torch.device("cpu"))


def clustering(**settings) -> MoGoClustering:
    sizes = {"foreground_clusters": 3, "background_clusters": 2}
    return MoGoClustering(ClusteringConfig(**sizes | settings), seed=7, world=ALONE)


def rows(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def samples(*batches: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[BankRows, BankRows]]:
    """Batches of one image each."""
    return [tuple(image_rows(tokens, image) for tokens in pair) for image, pair in enumerate(batches)]


def test_the_first_pass_fills_the_banks_and_finds_separate_groups():
    corners = torch.eye(4)[:3].repeat_interleave(10, dim=0) * 5
    mogo = clustering()
    figures = mogo.refresh(0, samples((corners[:16], rows(5, 0)), (corners[16:], rows(4, 1))))
    assert torch.equal(mogo.banks[0].rows, corners)
    assert mogo.banks[1].total == 9
    assert torch.equal(mogo.centroids.foreground.sum(dim=1), torch.full((3,), 5.0))
    assert figures["foreground_rows"] == 30
    assert figures["foreground_inertia"] == pytest.approx(0)


def test_the_bank_is_in_the_order_of_images_whatever_order_they_come_in():
    batches = samples(*[(rows(5, 2 * image), rows(4, 2 * image + 1)) for image in range(4)])
    forth, back = clustering(), clustering()
    forth.refresh(0, batches)
    back.refresh(0, batches[::-1])
    for one, other in zip(forth.banks, back.banks, strict=True):
        assert torch.equal(one.rows, other.rows)


def test_later_passes_replace_half_of_the_rows():
    mogo = clustering()
    mogo.refresh(0, samples((rows(20, 0), rows(20, 1))))
    before = mogo.banks[0].rows
    mogo.refresh(1, samples((rows(20, 2), rows(20, 3))))
    assert (mogo.banks[0].rows != before).any(dim=1).sum() == 10


def test_a_bank_smaller_than_its_clusters_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match="background bank has 1 tokens for 2 clusters"):
        clustering().refresh(0, samples((rows(5, 0), rows(1, 1))))


def test_the_online_mode_clusters_once_and_keeps_no_bank():
    mogo = clustering(mode="online")
    assert [mogo.due(epoch) for epoch in range(3)] == [True, False, False]
    mogo.refresh(0, samples((rows(20, 0), rows(20, 1))))
    assert mogo.banks is None


def test_the_epoch_mode_leaves_the_centroids_alone_between_passes():
    mogo = clustering()
    mogo.refresh(0, samples((rows(20, 0), rows(20, 1))))
    before = mogo.centroids
    mogo.follow(
        rows(6, 2),
        torch.ones(6, dtype=torch.bool),
        torch.zeros(6, dtype=torch.int64),
        hold=torch.tensor(False),
    )
    assert mogo.centroids is before


@pytest.mark.parametrize("hold", [False, True])
def test_the_online_mode_moves_nothing_where_it_is_held(hold):
    mogo = clustering(mode="online")
    mogo.refresh(0, samples((rows(20, 0), rows(20, 1))))
    before = mogo.state_dict()
    tokens = torch.full((6, 4), torch.nan) if hold else rows(6, 2)
    mogo.follow(
        tokens,
        torch.arange(6) < 3,
        torch.zeros(6, dtype=torch.int64),
        hold=torch.tensor(hold),
    )
    after = mogo.state_dict()
    for name in ("centroids_foreground", "centroids_background", "idle_foreground", "idle_background"):
        assert torch.equal(before[name], after[name]) == hold


@pytest.mark.parametrize("k", ["fixed", "auto"])
def test_an_empty_bank_is_refused_whatever_k_is(k):
    with pytest.raises(ValueError, match=r"foreground bank has no tokens: change --clustering\.keep_mass"):
        clustering(k=k).refresh(0, samples((rows(0, 0), rows(9, 1))))


def test_clusters_shrink_to_the_tokens_there_are():
    mogo = clustering(k="auto")
    figures = mogo.refresh(0, samples((rows(2, 0), rows(9, 1))))
    assert figures["foreground_clusters"] == len(mogo.centroids.foreground) == 2
    assert figures["background_clusters"] == len(mogo.centroids.background) == 2


@pytest.mark.parametrize("mode", ["epoch", "online"])
def test_the_state_comes_back_in_another_object(mode):
    mogo, other = clustering(mode=mode), clustering(mode=mode)
    mogo.refresh(0, samples((rows(20, 0), rows(20, 1))))
    other.load_state_dict(mogo.state_dict(), mogo.banks, torch.device("cpu"))
    assert isinstance(other.centroids, Centroids)
    assert torch.equal(other.centroids.background, mogo.centroids.background)
    if mode == "online":
        assert other.banks is mogo.banks is None
    else:
        assert torch.equal(other.banks[1].rows, mogo.banks[1].rows)


def test_settings_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match=r"clustering\.sample_share is 0"):
        ClusteringConfig(sample_share=0)
