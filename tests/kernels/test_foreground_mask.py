import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from kernels.foreground import foreground_mask
from kernels.foreground.reference import _blur_matrix


def by_definition(attention, keep_mass, min_size):
    """Section 3 for one map of (heads, h, w), with scipy's correlation and component labelling."""
    taps = np.exp(-0.5 * (np.arange(-3, 4) / 0.6) ** 2)
    blurred = attention.double().mean(dim=0).numpy()
    for axis in (0, 1):
        blurred = ndimage.correlate1d(blurred, taps / taps.sum(), axis=axis, mode="mirror")
    order = np.argsort(blurred, axis=None, kind="stable")
    mask = np.zeros(blurred.size, dtype=bool)
    mask[order] = np.cumsum(blurred.ravel()[order]) / blurred.sum() > 1 - keep_mass
    labels, count = ndimage.label(mask.reshape(blurred.shape), structure=np.ones((3, 3)))
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, index=range(count + 1))
    return (labels > 0) & (sizes[labels] >= min_size)


@pytest.mark.parametrize("side", [14, 20, 28])
@pytest.mark.parametrize("percent", [60, 65, 70])
def test_golden(golden, side, percent):
    g = golden("foreground")
    attention = torch.from_numpy(g[f"cls_attention_{side}"]).unflatten(2, (side, side))
    mask = foreground_mask(attention, percent / 100)
    assert (mask.numpy() == g[f"mask_{side}_{percent}"].astype(bool)).mean() >= 0.999


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 11), st.integers(1, 11)),
    keep_mass=st.sampled_from([0.2, 0.65, 1.0]),
    min_size=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_definition(shape, keep_mass, min_size, seed):
    # Peaks: a few cells hold most of the mass, so that components of every size occur.
    attention = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) ** 12 + 1e-9
    expected = [by_definition(image, keep_mass, min_size) for image in attention]
    assert torch.equal(
        foreground_mask(attention, keep_mass, min_size=min_size), torch.tensor(np.stack(expected))
    )


@pytest.mark.parametrize(("min_size", "cells"), [(1, 6), (2, 5), (3, 3)])
def test_drops_components_below_the_smallest_size(min_size, cells):
    attention = torch.zeros(1, 1, 12, 12)
    single, pair, triple = [(1, 1)], [(1, 8), (2, 9)], [(8, 1), (8, 2), (9, 3)]
    for cell in single + pair + triple:
        attention[0, 0, *cell] = 1
    mask = foreground_mask(attention, 0.42, min_size=min_size)
    assert mask.sum() == cells


def test_a_map_without_attention_has_no_foreground():
    attention = torch.rand(2, 2, 5, 5)
    attention[1] = 0
    mask = foreground_mask(attention, 1.0)
    assert mask[0].all()
    assert not mask[1].any()


def test_images_heads_and_strides_do_not_matter():
    attention = torch.rand(3, 2, 7, 5)
    masks = foreground_mask(attention, 0.6)
    assert torch.equal(
        foreground_mask(attention.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0), 0.6), masks
    )
    assert torch.equal(foreground_mask(attention[1:2], 0.6), masks[1:2])
    assert torch.equal(foreground_mask(attention * 7, 0.6), masks)
    assert foreground_mask(attention[:0], 0.6).shape == (0, 7, 5)


@pytest.mark.parametrize("keep_mass", [0.0, -0.1, 1.01, float("nan")])
def test_keep_mass_out_of_range(keep_mass):
    with pytest.raises(ValueError, match=f"keep_mass.*{keep_mass}"):
        foreground_mask(torch.rand(1, 1, 4, 4), keep_mass)


def test_unfit_arguments_are_named():
    with pytest.raises(ValueError, match=r"\(6, 196\)"):
        foreground_mask(torch.rand(6, 196), 0.6)
    with pytest.raises(ValueError, match=r"torch.int64"):
        foreground_mask(torch.ones(1, 1, 4, 4, dtype=torch.int64), 0.6)
    with pytest.raises(ValueError, match=r"\(1, 1, 0, 4\)"):
        foreground_mask(torch.rand(1, 1, 0, 4), 0.6)
    with pytest.raises(ValueError, match=r"min_size.*4"):
        foreground_mask(torch.rand(1, 1, 4, 4), 0.6, min_size=4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_heads_are_averaged_in_full_precision(dtype):
    attention = torch.rand(20, 6, 12, 12, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(foreground_mask(attention, 0.6), foreground_mask(attention.double(), 0.6))


def test_the_blur_reaches_three_cells():
    expected = ndimage.gaussian_filter1d(np.eye(9), 0.6, axis=0, mode="mirror", radius=3)
    np.testing.assert_allclose(_blur_matrix(9, torch.device("cpu")).numpy(), expected, rtol=1e-9, atol=1e-12)
