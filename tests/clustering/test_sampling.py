import numpy as np
import torch

from hcl.clustering.sampling import Targets, sample_tokens


def numbered_targets(images: int = 3, tokens: int = 50) -> Targets:
    """Tokens whose single channel is their own number, with a foreground of varying size."""
    numbers = torch.arange(images * tokens, dtype=torch.float32).view(images, tokens, 1)
    foreground = torch.rand(images, tokens, generator=torch.Generator().manual_seed(0)) < 0.4
    return Targets(numbers, foreground)


def test_each_image_gives_the_floor_of_its_share_from_its_own_side():
    targets = numbered_targets()
    foreground, background = sample_tokens(targets, np.arange(3), 0.3, seed=7, draw=0)
    for rows, member in ((foreground, targets.foreground), (background, ~targets.foreground)):
        chosen = rows.tokens.flatten().long()
        assert len(chosen.unique()) == len(chosen)
        assert member.flatten()[chosen].all()
        assert torch.equal(rows.images, chosen // 50)
        taken = torch.bincount(rows.images, minlength=3)
        assert taken.tolist() == [int(0.3 * int(n)) for n in member.sum(dim=1)]


def test_the_sample_of_an_image_does_not_depend_on_its_batch():
    targets = numbered_targets()
    together, _ = sample_tokens(targets, np.array([4, 5, 6]), 0.3, seed=7, draw=2)
    apart = [
        sample_tokens(
            Targets(targets.tokens[i : i + 1], targets.foreground[i : i + 1]), [4 + i], 0.3, seed=7, draw=2
        )
        for i in range(3)
    ]
    assert torch.equal(together.tokens, torch.cat([foreground.tokens for foreground, _ in apart]))
    assert together.images.unique().tolist() == [4, 5, 6]


def test_another_draw_takes_other_tokens():
    first, _ = sample_tokens(numbered_targets(), np.arange(3), 0.3, seed=7, draw=0)
    second, _ = sample_tokens(numbered_targets(), np.arange(3), 0.3, seed=7, draw=1)
    assert not torch.equal(first.tokens, second.tokens)


def test_an_image_without_foreground_gives_none():
    targets = numbered_targets(1)
    foreground, background = sample_tokens(
        Targets(targets.tokens, torch.zeros_like(targets.foreground)), np.arange(1), 0.3, seed=7, draw=0
    )
    assert foreground.tokens.shape == (0, 1)
    assert background.tokens.shape == (15, 1)


def test_images_draw_apart():
    tokens = torch.arange(50.0)[:, None].expand(3, 50, 1)
    foreground, _ = sample_tokens(
        Targets(tokens, torch.ones(3, 50, dtype=torch.bool)), np.arange(3), 0.3, seed=7, draw=0
    )
    assert len({tuple(image.flatten().tolist()) for image in foreground.tokens.split(15)}) == 3


def test_the_share_is_rounded_down_as_python_does_it():
    """Of 90 tokens 0.7 is a little less than 63; in single precision it would be 63."""
    targets = Targets(torch.zeros(1, 90, 1), torch.ones(1, 90, dtype=torch.bool))
    foreground, _ = sample_tokens(targets, np.arange(1), 0.7, seed=7, draw=0)
    assert len(foreground.tokens) == int(0.7 * 90) == 62
