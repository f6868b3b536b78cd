"""Views are parts of the image in other colours, with patches hidden from every other one."""

import torch

from scripts.tiny.views import LUMA, crop, draw_masks, recolour, recoloured


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def luma(images: torch.Tensor) -> torch.Tensor:
    """Brightness of the pixels less its mean, one row an image."""
    rows = torch.einsum("c,bchw->bhw", LUMA, images).flatten(1)
    return rows - rows.mean(1, keepdim=True)


def test_views_are_parts_of_the_image_in_other_colours():
    images = torch.rand(5, 3, 32, 32, generator=generator())
    views = crop(images, 16, (0.3, 1.0), generator())
    assert views.shape == (5, 3, 16, 16)
    assert images.min() <= views.min()
    assert views.max() <= images.max()
    recoloured = recolour(views, generator())
    assert recoloured.shape == views.shape
    assert not torch.equal(recoloured, views)
    assert recoloured.min() >= 0
    assert recoloured.max() <= 1


def test_every_other_image_is_masked():
    masks = draw_masks(6, 50, generator())
    assert not masks[::2].any()
    assert masks[1::2].any(dim=1).all()


def test_only_colours_change_from_one_recolouring_to_the_next():
    images = torch.rand(6, 3, 4, 4, generator=generator()).repeat_interleave(8, 2).repeat_interleave(8, 3)
    draws = generator()
    first, second = recoloured(images, draws), recoloured(images, draws)
    assert first.shape == images.shape
    assert not torch.equal(first, second)
    like = torch.cosine_similarity(luma(first), luma(second), dim=1)
    assert (like > 0.5).all()
