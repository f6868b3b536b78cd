"""The search, against the whole matrix of similarities."""

import pytest
import torch
import torch.nn.functional as F

from hcl.evaluation import nearest_tokens as module
from hcl.evaluation.nearest_tokens import nearest_tokens


def tokens(count: int, seed: int, spread: float = 0.5, channels: int = 32) -> torch.Tensor:
    """Unit rows that lie around one direction, as the tokens of images do."""
    noise = torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))
    return F.normalize(torch.ones(channels) + spread * noise, dim=1)


def whole(queries: torch.Tensor, memory: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    return (queries.double() @ memory.double().T).topk(k, dim=1)


@pytest.fixture(params=[(7, 16), (1024, 32768)])
def pieces(request, monkeypatch):
    monkeypatch.setattr(module, "QUERIES_AT_A_TIME", request.param[0])
    monkeypatch.setattr(module, "MEMORY_AT_A_TIME", request.param[1])
    monkeypatch.setattr(module, "SAMPLE", 2 * request.param[1])


@pytest.mark.parametrize("k", [1, 5, 30, 123])
@pytest.mark.usefixtures("pieces")
def test_float32_neighbours_are_those_of_the_whole_matrix(k):
    queries, memory = tokens(20, 0), tokens(123, 1)
    found = nearest_tokens(queries, memory, k)
    similarity, rows = whole(queries, memory, k)
    assert torch.equal(found.rows, rows)
    torch.testing.assert_close(found.similarity, similarity.float(), atol=1e-6, rtol=0)


@pytest.mark.usefixtures("pieces")
def test_bfloat16_finds_nearly_all_and_gives_their_float32_similarity():
    queries, memory = tokens(40, 0), tokens(3000, 1).bfloat16()
    found = nearest_tokens(queries, memory, 30)
    similarity, rows = whole(queries, memory, 30)
    recall = (found.rows[:, :, None] == rows[:, None, :]).any(dim=2).double().mean()
    assert recall > 0.99
    torch.testing.assert_close(found.similarity, similarity.float(), atol=1e-3, rtol=0)
    own = (memory[found.rows].double() * queries[:, None].double()).sum(dim=2)
    torch.testing.assert_close(found.similarity, own.float(), atol=1e-6, rtol=0)


def test_tokens_that_lie_close_together_are_still_told_apart_in_bfloat16():
    """Where plain bfloat16 products are nearly all equal."""
    queries, memory = tokens(40, 0, spread=0.1, channels=128), tokens(3000, 1, spread=0.1, channels=128)
    memory = memory.bfloat16()
    _, rows = whole(queries, memory, 30)
    plain = (queries.bfloat16() @ memory.T).topk(30, dim=1).indices
    found = nearest_tokens(queries, memory, 30).rows
    shares = [(x[:, :, None] == rows[:, None, :]).any(dim=2).double().mean() for x in (plain, found)]
    assert shares[0] < 0.5
    assert shares[1] > 0.99


def test_equal_tokens_are_all_found():
    memory = torch.cat([tokens(1, 0).expand(8, -1), tokens(50, 1)])
    found = nearest_tokens(tokens(1, 0), memory, 8)
    assert sorted(found.rows[0].tolist()) == list(range(8))


def test_no_queries_have_no_neighbours():
    assert nearest_tokens(tokens(3, 0)[:0], tokens(9, 1), 4).rows.shape == (0, 4)


@pytest.mark.parametrize(
    ("memory", "k", "message"),
    [
        (tokens(9, 1), 10, "cannot find 10 neighbours in a memory of 9 tokens"),
        (tokens(9, 1), 0, "cannot find 0 neighbours in a memory of 9 tokens"),
        (tokens(9, 1)[:, :8], 3, "queries have 32 channels, but the tokens of the memory have 8"),
        (tokens(9, 1).double(), 3, "the memory is torch.float64"),
    ],
)
def test_bad_memories_are_refused(memory, k, message):
    with pytest.raises(ValueError, match=message):
        nearest_tokens(tokens(3, 0), memory, k)
