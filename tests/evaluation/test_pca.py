"""Standardisation and PCA in chunks, against the same in one piece."""

from collections.abc import Callable

import pytest
import torch

from hcl.evaluation import pca
from hcl.evaluation.pca import fit_pca
from tests.kernels.conftest import Shards

CPU = torch.device("cpu")


def spread(rows: int = 61, channels: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(rows, channels, generator=generator) @ torch.randn(
        channels, channels, generator=generator
    )
    return mixed * torch.logspace(-2, 2, channels) + 5


def whole(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised rows and their principal axes, in float64."""
    centred = tokens.double() - tokens.double().mean(dim=0)
    standardised = centred / centred.std(dim=0, correction=0)
    return standardised, torch.linalg.svd(standardised, full_matrices=False).Vh.T


@pytest.mark.parametrize("chunk", [8, 61, 1000])
def test_chunks_give_the_axes_of_the_whole(monkeypatch, chunk):
    monkeypatch.setattr(pca, "CHUNK", chunk)
    tokens = spread()
    standardised, axes = whole(tokens)
    projected = fit_pca([tokens], 3, CPU).project(tokens)
    expected = standardised @ axes[:, :3]
    # An axis may point either way.
    expected *= (expected * projected).sum(dim=0).sign()
    assert projected.dtype == torch.float32
    torch.testing.assert_close(projected, expected.float(), atol=1e-4, rtol=1e-4)


def test_half_precision_tokens_are_raised_before_they_are_summed():
    tokens = spread().half()
    assert torch.equal(
        fit_pca([tokens], 3, CPU).project(tokens), fit_pca([tokens.float()], 3, CPU).project(tokens.float())
    )


def test_all_dimensions_keep_all_distances():
    tokens = spread()
    standardised, _ = whole(tokens)
    projected = fit_pca([tokens], 100, CPU).project(tokens)
    assert projected.shape == (61, 7)
    expected = torch.pdist(standardised)
    torch.testing.assert_close(torch.pdist(projected.double()), expected, atol=1e-4, rtol=1e-4)


def test_no_more_dimensions_than_rows():
    assert fit_pca([spread(rows=4)], 100, CPU).project(spread(rows=4)).shape == (4, 4)


def test_a_constant_channel_adds_nothing():
    tokens = spread()
    constant = torch.cat([tokens, torch.full((61, 1), 3e4)], dim=1)
    projected, alone = (fit_pca([x], 3, CPU).project(x) for x in (constant, tokens))
    torch.testing.assert_close(projected.abs(), alone.abs(), atol=1e-4, rtol=1e-4)


def test_a_mean_far_above_the_deviation_costs_no_digits():
    tokens = spread().double()
    near, far = (fit_pca([x], 3, CPU) for x in (tokens, tokens + 1e6))
    torch.testing.assert_close(near.axes.abs(), far.axes.abs(), atol=1e-4, rtol=1e-4)


def test_ranks_find_the_axes_of_the_whole():
    tokens = spread()
    alone = fit_pca([tokens], 3, CPU).project(tokens)
    parts = [[tokens[:20], tokens[20:25]], [tokens[:0]], [tokens[25:]]]
    shards = Shards(len(parts))

    def on_rank(rank: int, reduce: Callable, gather: Callable) -> torch.Tensor:
        return fit_pca(parts[rank], 3, CPU, reduce=reduce).project(tokens)

    for projected in shards.run(on_rank):
        torch.testing.assert_close(projected.abs(), alone.abs(), atol=1e-4, rtol=1e-4)
