import pytest
import torch

from kernels.scatter import add_at

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("width", [(), (3,)])
def test_rows_are_added_where_the_index_says(device, width):
    generator = torch.Generator().manual_seed(0)
    rows, index = torch.randn(1000, *width, generator=generator), torch.arange(1000) % 7
    sums = torch.ones(8, *width, dtype=torch.float64, device=device)
    add_at(sums, index.to(device), rows.double().to(device))
    expected = torch.stack([1 + rows[index == place].double().sum(dim=0) for place in range(8)])
    torch.testing.assert_close(sums.cpu(), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_rows_give_the_same_bits(device):
    rows = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    index = (torch.arange(len(rows)) % 3).to(device)
    first, second = torch.zeros(2, 3, dtype=torch.float64, device=device)
    add_at(first, index, rows)
    add_at(second, index, rows)
    assert torch.equal(first, second)
