"""Label distributions of tokens, and which tokens enter a memory."""

import numpy as np
import pytest
import torch

from hcl.evaluation import token_labels
from hcl.evaluation.token_labels import (
    _scores,
    memory_shares,
    sample_tokens,
    token_label_distributions,
)
from hcl.randomness import generator


def labels(images: int = 3, height: int = 6, width: int = 8, classes: int = 4) -> torch.Tensor:
    rng = np.random.default_rng(0)
    values = rng.integers(classes + 1, size=(images, height, width))
    return torch.from_numpy(np.where(values == classes, 255, values).astype(np.uint8))


@pytest.mark.parametrize("images_at_a_time", [2, 16])
def test_distributions_are_those_of_a_loop_over_patches(monkeypatch, images_at_a_time):
    monkeypatch.setattr(token_labels, "IMAGES_AT_A_TIME", images_at_a_time)
    distributions, labelled = token_label_distributions(labels(), (3, 2), 4)
    assert distributions.shape == (3, 6, 4)
    for image in range(3):
        for token in range(6):
            row, column = divmod(token, 2)
            patch = labels()[image, 2 * row : 2 * row + 2, 4 * column : 4 * column + 4]
            counts = patch[patch != 255].long().bincount(minlength=4)
            torch.testing.assert_close(distributions[image, token], counts / counts.sum())
    assert labelled.all()


def test_a_patch_without_labelled_pixels_has_no_distribution():
    masks = labels()
    masks[1, :2] = 255
    distributions, labelled = token_label_distributions(masks, (3, 2), 4)
    assert labelled[1].tolist() == [False, False, True, True, True, True]
    assert not distributions[1, :2].any()
    torch.testing.assert_close(distributions.sum(dim=2), labelled.float())


def test_another_ignore_index_is_honoured():
    masks = torch.tensor([[[0, 3], [1, 3]]], dtype=torch.uint8)
    distributions, _ = token_label_distributions(masks, (1, 1), 3, ignore_index=3)
    assert distributions.tolist() == [[[0.5, 0.5, 0]]]


def test_no_images_have_no_distributions():
    distributions, labelled = token_label_distributions(labels()[:0], (3, 2), 4)
    assert (distributions.shape, labelled.shape) == ((0, 6, 4), (0, 6))


def test_bad_labels_are_refused():
    with pytest.raises(ValueError, match="6x8 pixels do not divide into 4x2 patches"):
        token_label_distributions(labels(), (4, 2), 4)
    with pytest.raises(ValueError, match=r"6x8.*3x3"):
        token_label_distributions(labels(), (3, 3), 4)
    with pytest.raises(ValueError, match=r"labels \[2, 3\] are out of range for 2 classes"):
        token_label_distributions(labels(), (3, 2), 2)


@pytest.mark.parametrize(("memory_size", "images"), [(10, 3), (7, 7), (2, 5), (102400, 10582)])
def test_shares_are_even_and_fill_the_memory(memory_size, images):
    shares = memory_shares(memory_size, images)
    assert len(shares) == images
    assert shares.sum() == memory_size
    assert shares.max() - shares.min() <= 1


def test_images_give_their_share_or_all_that_is_labelled():
    masks = labels()
    masks[1, :4] = 255
    distributions, labelled = token_label_distributions(masks, (3, 2), 4)
    chosen = sample_tokens(distributions, labelled, range(3), memory_shares(10, 3), seed=0)
    assert chosen.sum(dim=1).tolist() == [3, 2, 4]
    assert not (chosen & ~labelled).any()


def test_the_draw_depends_on_seed_and_image_alone():
    distributions, labelled = token_label_distributions(labels(6), (3, 2), 4)
    shares = memory_shares(12, 6)
    whole = sample_tokens(distributions, labelled, range(6), shares, seed=1)
    shard = [5, 0, 3]
    part = sample_tokens(distributions[shard], labelled[shard], np.array(shard), shares, seed=1)
    assert torch.equal(part, whole[shard])
    assert not torch.equal(sample_tokens(distributions, labelled, range(6), shares, seed=2), whole)


def test_rare_classes_come_first():
    masks = torch.zeros(200, 10, 10, dtype=torch.uint8)
    masks[:, 0, 0] = 1
    distributions, labelled = token_label_distributions(masks, (10, 10), 2)
    chosen = sample_tokens(distributions, labelled, range(200), memory_shares(200, 200), seed=0)
    # One draw from U(0, 1) against the least of 99 from U(0, 99), which is above it about 63 times in 100.
    assert 0.5 < chosen[:, 0].double().mean() < 0.76


def test_a_class_counts_once_for_every_token_that_holds_any_of_it():
    distributions = torch.tensor([[[0.9, 0.1, 0], [0.1, 0.9, 0], [0, 0.2, 0.8], [0, 0, 1.0]]])
    uniform = generator(3, "retrieval memory", 5).random(4)
    expected = torch.from_numpy(np.array([2 + 3, 2 + 3, 3 + 2, 2]) * uniform)
    torch.testing.assert_close(_scores(distributions, [5], seed=3), expected[None])
