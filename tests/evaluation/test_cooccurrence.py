"""Co-occurrence of ids: the published program's numbers, and a loop over cells."""

import numpy as np
import pytest
import torch

from hcl.evaluation import cooccurrence
from hcl.evaluation.cooccurrence import cooccurrence_sums, offsets


def maps(images: int = 5, shape: tuple[int, int] = (7, 6), ids: int = 4) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(ids, size=(images, *shape)))


def loop(cluster_maps: torch.Tensor, ids: int, distances: tuple[int, ...]) -> np.ndarray:
    shares, images = np.zeros((ids, ids)), np.zeros(ids)
    for cells in cluster_maps.numpy():
        counts = np.zeros((ids, ids))
        for (row, column), id_ in np.ndenumerate(cells):
            for down, right in offsets(distances):
                inside = 0 <= row + down < cells.shape[0] and 0 <= column + right < cells.shape[1]
                if inside and cells[row + down, column + right] != id_:
                    counts[id_, cells[row + down, column + right]] += 1
        sums = counts.sum(axis=1)
        shares += counts / np.maximum(sums, 1)[:, None]
        images += sums > 0
    return shares / np.maximum(images, 1)[:, None]


@pytest.mark.parametrize("images_at_a_time", [1, 4, 64])
def test_the_graph_is_that_of_the_published_program(golden, monkeypatch, images_at_a_time):
    monkeypatch.setattr(cooccurrence, "IMAGES_AT_A_TIME", images_at_a_time)
    vectors = golden("fully_unsupervised")
    found = cooccurrence_sums(torch.from_numpy(vectors["cluster_maps"]), 12, (1, 2)).matrix
    np.testing.assert_allclose(found.numpy(), vectors["cooccurrence"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("distances", [(1,), (2,), (1, 3), (6,), (9,)])
def test_any_distance_gives_what_a_loop_gives(distances):
    found = cooccurrence_sums(maps(), 4, distances).matrix
    np.testing.assert_allclose(found.numpy(), loop(maps(), 4, distances))


def test_the_published_angles_lead_to_these_neighbours():
    assert offsets((1,)) == [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]
    assert offsets((2,)) == [(0, 2), (1, 1), (2, 0), (1, -1), (0, -2), (-2, -1), (-2, 0), (-1, 1)]


def test_shards_add_up_to_the_whole():
    whole = cooccurrence_sums(maps(), 4)
    shards = [cooccurrence_sums(maps()[part], 4) for part in (slice(2), slice(2, 2), slice(2, 5))]
    for total, parts in zip(whole, zip(*shards, strict=True), strict=True):
        torch.testing.assert_close(sum(parts), total, rtol=1e-14, atol=0)


def test_an_image_of_one_id_and_an_id_that_never_occurs_add_nothing():
    lonely = torch.zeros(1, 4, 4, dtype=torch.uint8)
    found = cooccurrence_sums(lonely, 3)
    assert found.images.tolist() == [0, 0, 0]
    assert not found.matrix.any()
    mixed = lonely.clone()
    mixed[0, 0, 0] = 2
    both = cooccurrence_sums(torch.cat([lonely, mixed]), 3)
    assert both.images.tolist() == [1, 0, 1]
    assert both.matrix.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="ids range from 0 to 3; they must lie between 0 and 2"):
        cooccurrence_sums(maps(), 3)
    with pytest.raises(ValueError, match=r"distances are \[0, 1\]"):
        cooccurrence_sums(maps(), 4, (0, 1))


def test_neighbours_are_one_and_two_cells_away():
    assert torch.equal(cooccurrence_sums(maps(), 4).shares, cooccurrence_sums(maps(), 4, (1, 2)).shares)
