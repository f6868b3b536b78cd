"""Labels that neighbours vote for, against the formula."""

import pytest
import torch
import torch.nn.functional as F

from hcl.evaluation import label_retrieval
from hcl.evaluation.label_retrieval import Memory, classes_of_pixels, retrieve, unit_length


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def memory() -> Memory:
    labels = F.one_hot(torch.arange(50) % 3, 3).half()
    labels[7] = torch.tensor([0.25, 0.5, 0.25])
    return Memory(unit_length(normal(50, 8, seed=1), torch.float32), labels)


@pytest.mark.parametrize("queries_at_a_time", [3, 4096])
def test_votes_are_a_softmax_over_the_nearest(memory, monkeypatch, queries_at_a_time):
    monkeypatch.setattr(label_retrieval, "QUERIES_AT_A_TIME", queries_at_a_time)
    queries = 5 * normal(10, 8, seed=0)
    cosine = F.normalize(queries, dim=1) @ memory.tokens.T
    excluded = cosine < cosine.topk(6, dim=1).values[:, -1:]
    weights = (cosine / 0.1).masked_fill(excluded, -torch.inf).softmax(dim=1)
    found = retrieve(queries, memory, neighbours=6, temperature=0.1)
    torch.testing.assert_close(found, weights @ memory.labels.float())
    torch.testing.assert_close(found.sum(dim=1), torch.ones(10))


def test_a_token_of_the_memory_gets_its_own_label_at_a_low_temperature(memory):
    found = retrieve(memory.tokens, memory, neighbours=30, temperature=1e-3)
    torch.testing.assert_close(found, memory.labels.float(), atol=1e-3, rtol=0)


def test_a_bfloat16_memory_gives_nearly_the_same_labels(memory):
    queries = normal(10, 8, seed=0)
    rounded = Memory(memory.tokens.bfloat16(), memory.labels)
    torch.testing.assert_close(retrieve(queries, rounded), retrieve(queries, memory), atol=0.1, rtol=0)


def test_a_temperature_that_is_not_above_0_is_refused(memory):
    with pytest.raises(ValueError, match="temperature is 0"):
        retrieve(memory.tokens, memory, temperature=0)


def test_units_are_measured_before_rounding():
    units = unit_length(torch.full((2, 3, 4), 300.0, dtype=torch.float16), torch.bfloat16)
    assert units.dtype == torch.bfloat16
    assert torch.equal(units, torch.full((2, 3, 4), 0.5, dtype=torch.bfloat16))


def test_pixels_take_the_likeliest_class_of_the_upsampled_distributions():
    distributions = torch.tensor([[[0.95, 0.05], [0.4, 0.6]]])
    # The third column lies three quarters of the way to the second token: 0.5375 against 0.4625.
    assert classes_of_pixels(distributions, (1, 2), 4).tolist() == [[[0, 0, 0, 1]] * 4]


def test_tokens_lie_in_the_middle_of_their_patches():
    """So the third of four columns lies three quarters of the way from one token to the other."""
    distributions = torch.tensor([[[0.9, 0.1], [0.35, 0.65]]])
    assert classes_of_pixels(distributions, (1, 2), 4).tolist() == [[[0, 0, 1, 1]] * 4]


def test_what_is_not_told_is_as_published(memory):
    queries = normal(10, 8, seed=0)
    assert torch.equal(retrieve(queries, memory), retrieve(queries, memory, neighbours=30, temperature=0.02))
