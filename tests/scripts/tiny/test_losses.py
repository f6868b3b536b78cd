"""Targets are balanced, and rare patches are where to look."""

import torch

from scripts.tiny.losses import balanced, rarity


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_targets_use_all_prototypes_alike():
    cosines = torch.rand(64, 8, generator=generator())
    cosines[:, 0] += 1.0  # without balance, everything would be the first
    targets = balanced(cosines, rounds=50)
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    torch.testing.assert_close(targets.mean(0), torch.full((8,), 1 / 8), atol=1e-3, rtol=0)


def test_the_rare_patch_is_where_to_look():
    patches = torch.tensor([1.0, -1.0, 1.0, -1.0]).repeat(4, 9, 1)
    patches[2, 5] = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    patches += 1e-3 * torch.randn(patches.shape, generator=generator())
    wanted = rarity(patches, generator())
    torch.testing.assert_close(wanted.sum(1), torch.ones(4))
    assert wanted[2].argmax() == 5
    assert wanted[2, 5] > 0.99
