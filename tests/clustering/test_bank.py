import pytest
import torch

from hcl.clustering.bank import Bank, PlacedRows, place
from hcl.distributed import World, connect
from hcl.randomness import generator
from tests.clustering.support import image_rows
from tests.ranks import on_ranks

CPU = torch.device("cpu")
ALONE = World.alone(CPU)
OLD, NEW = 0, 1
"""Two passes over seven images, of which the second finds fewer rows."""


def in_order(rows: torch.Tensor) -> PlacedRows:
    return PlacedRows(rows, torch.arange(len(rows)), len(rows))


def of_image(image: int, which: int) -> torch.Tensor:
    """No row in image 3, and more in the others the higher their number."""
    count = 0 if image == 3 else 1 + image - which * (image > 4)
    return torch.arange(count * 2.0).view(count, 2) + 100 * image + 1000 * which


def passed(images: list[int], which: int, world: World) -> PlacedRows:
    return place([image_rows(of_image(image, which), image) for image in images], world)


def banks(images: list[int], world: World) -> list[Bank]:
    """A bank, half of it renewed, and all of it renewed."""
    old, new = passed(images, OLD, world), passed(images, NEW, world)
    bank = Bank.of(old, world)
    return [bank, *(bank.renewed(new, share, generator(7, "test"), world) for share in (0.5, 1))]


def test_rows_are_numbered_by_image_and_then_in_their_own_order():
    placed = passed([4, 1, 3, 0], OLD, ALONE)
    assert placed.places.tolist() == [3, 4, 5, 6, 7, 1, 2, 0]
    assert placed.total == 8


def test_a_bank_of_new_rows_has_them_in_place():
    bank = Bank.of(passed([4, 1, 3, 0], OLD, ALONE), ALONE)
    assert torch.equal(bank.rows, torch.cat([of_image(image, OLD) for image in (0, 1, 4)]))


@pytest.mark.parametrize(("old", "new"), [(10, 10), (10, 7), (7, 10)])
def test_half_of_the_shorter_bank_is_replaced_index_by_index(old, new):
    bank = Bank.of(in_order(torch.zeros(old, 2)), ALONE)
    rows = torch.arange(1, new + 1.0)[:, None].expand(-1, 2)
    renewed = bank.renewed(in_order(rows), 0.5, generator(7, "test"), ALONE)
    changed = renewed.rows[:, 0].nonzero().flatten()
    assert len(renewed.rows) == renewed.total == old
    assert len(changed) == min(old, new) // 2
    assert torch.equal(renewed.rows[changed, 0], changed + 1.0)
    assert not bank.rows.any()


def test_a_share_of_one_takes_the_new_rows_alone():
    new = torch.rand(5, 2)
    bank = Bank.of(in_order(torch.rand(9, 2)), ALONE)
    renewed = bank.renewed(in_order(new), 1.0, generator(7, "test"), ALONE)
    assert torch.equal(renewed.rows, new)
    assert renewed.total == 5


def _rank() -> None:
    """What one of the ranks holds and finds; the first of them has an image without rows."""
    with connect("cpu") as world:
        held = banks([[3], [6, 0], [2, 5, 1, 4]][world.rank], world)
        alone = banks(list(range(7)), ALONE)
        for bank, whole in zip(held, alone, strict=True):
            assert bank.total == whole.total
            assert torch.equal(bank.rows, whole.rows[world.slice(whole.total)])
            places = torch.tensor([9, 0, 9, whole.total - 1])
            assert torch.equal(bank.at(places, world), whole.rows[places])


def test_ranks_share_the_bank_of_one_process():
    on_ranks(3, _rank)


class Apart(World):
    """A rank that hears nothing of the others."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


@pytest.mark.parametrize(("rank", "expected"), [(0, [1, 0, 3, 0]), (1, [0, 4, 0, 6])])
def test_a_rank_gives_the_rows_of_its_own_share_alone(rank, expected):
    world, rows = Apart(rank, 2, torch.device("cpu")), torch.arange(1.0, 7.0)[:, None]
    found = Bank(rows[world.slice(6)], 6).at(torch.tensor([0, 3, 2, 5]), world)
    assert found[:, 0].tolist() == expected
