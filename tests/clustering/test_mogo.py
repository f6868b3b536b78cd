from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from hcl.clustering.mogo import SIDES, Centroids, ClusteringConfig, MoGoClustering
from hcl.clustering.sampling import BankRows
from hcl.distributed import World
from hcl.randomness import generator
from kernels.kmeans import MomentumUpdate, kmeans, momentum_centroid_update
from tests.clustering.support import image_rows
from tests.kernels.conftest import Shards

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
        assert torch.equal(other.state_dict()["idle_background"], torch.zeros(2, dtype=torch.int64))
    else:
        assert torch.equal(other.banks[1].rows, mogo.banks[1].rows)


def test_settings_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match=r"clustering\.sample_share is 0"):
        ClusteringConfig(sample_share=0)
    for momentum in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"clustering\.centroid_momentum.*{momentum}"):
            ClusteringConfig(centroid_momentum=momentum)


def test_every_epoch_clusters_from_rows_of_its_own():
    mogo = clustering(iterations=1)
    figures = mogo.refresh(2, samples((rows(40, 0), rows(30, 1))))
    for side, bank, found in zip(SIDES, mogo.banks, mogo.centroids, strict=True):
        places = generator(7, f"k-means {side}", 2).choice(bank.total, size=len(found), replace=False)
        start = bank.rows[torch.from_numpy(places)]
        expected = kmeans(bank.rows, len(found), iterations=1, init=start)
        assert torch.equal(found, expected.centroids)
        assert not torch.equal(found, kmeans(bank.rows, len(found), iterations=20, init=start).centroids)
        assert figures[f"{side}_inertia"] == pytest.approx(expected.inertia / bank.total)


def test_every_later_pass_replaces_rows_of_its_own_on_each_side():
    mogo = clustering(replace_share=0.25)
    mogo.refresh(0, samples((rows(20, 0), rows(20, 1))))
    before = [bank.rows for bank in mogo.banks]
    mogo.refresh(3, samples((rows(20, 2), rows(20, 3))))
    for side, bank, old in zip(SIDES, mogo.banks, before, strict=True):
        replaced = (bank.rows != old).any(dim=1).nonzero().flatten().tolist()
        assert replaced == sorted(generator(7, f"replace {side}", 3).choice(20, size=5, replace=False))


def test_the_online_mode_moves_the_centroids_of_each_side_by_its_own_tokens():
    mogo = clustering(mode="online", centroid_momentum=0.5, reseed_after=2)
    mogo.refresh(0, samples((rows(20, 0), rows(20, 1))))
    expected = [MomentumUpdate(side, torch.zeros(len(side), dtype=torch.int64)) for side in mogo.centroids]
    foreground, assignment = torch.arange(6) < 2, torch.tensor([0, 0, 1, 1, 1, 0])
    for tokens in (rows(6, 2), rows(6, 3)):
        mogo.follow(tokens, foreground, assignment, hold=torch.tensor(False))
        expected = [
            momentum_centroid_update(
                *(before.centroids, tokens, assignment.where(mine, -1), 0.5), idle=before.idle, patience=2
            )
            for before, mine in zip(expected, (foreground, ~foreground), strict=True)
        ]
    state = mogo.state_dict()
    for side, after in zip(SIDES, expected, strict=True):
        assert torch.equal(state[f"centroids_{side}"], after.centroids)
        assert torch.equal(state[f"idle_{side}"], after.idle)
    assert state["idle_foreground"].tolist() == [0, 0, 0]  # two clusters without a token were seeded anew


@dataclass(frozen=True)
class Rank(World):
    """One of several ranks that are threads of this process."""

    reduced: Callable[[torch.Tensor], torch.Tensor]
    gathered: Callable[[torch.Tensor], torch.Tensor]

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.reduced(tensor)

    def all_gather(self, rows: torch.Tensor) -> torch.Tensor:
        return self.gathered(rows)


def test_ranks_move_the_centroids_of_one_process():
    whole = clustering(mode="online", reseed_after=1)
    whole.refresh(0, samples((rows(20, 0), rows(20, 1))))
    state = whole.state_dict()
    batch = rows(8, 2), torch.arange(8) % 3 > 0, torch.tensor([0, 0, 1, 1, 0, 1, 0, 1])
    whole.follow(*batch, hold=torch.tensor(False))

    def on_rank(rank: int, reduce: Callable, gather: Callable) -> dict[str, torch.Tensor | None]:
        world = Rank(rank, 2, torch.device("cpu"), reduce, gather)
        mogo = MoGoClustering(whole.config, seed=7, world=world)
        mogo.load_state_dict(state, None, world.device)
        mogo.follow(*(part[:3] if rank == 0 else part[3:] for part in batch), hold=torch.tensor(False))
        return mogo.state_dict()

    for found in Shards(2).run(on_rank):
        torch.testing.assert_close(found, whole.state_dict())
