"""The memory of retrieval: where it lies, and that it holds the same rows however many ranks build it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation import retrieval_memory
from hcl.evaluation.label_retrieval import Memory, unit_length
from hcl.evaluation.retrieval_memory import _home, remember
from hcl.evaluation.token_labels import memory_shares, sample_tokens, token_label_distributions
from hcl.evaluation.token_store import TokenStore
from hcl.memory import GIB
from tests.kernels.conftest import Shards

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
DATASET = Dataset("d", [None] * 7, ("a", "b", "c"))


@pytest.fixture
def store() -> TokenStore:
    """Seven images of 3x3 tokens; of the last one, few are labelled."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (7, 6, 6), generator=generator).to(torch.uint8)
    labels[-1, 2:] = 255
    tokens = torch.randn(7, 9, 4, generator=generator)
    return TokenStore(tokens.bfloat16(), torch.empty(7, 1, 3, 3), labels, (3, 3))


def filled(store: TokenStore, size: int, world: World) -> Memory:
    empty = Memory(torch.full((size, 4), torch.nan, dtype=torch.bfloat16), torch.full((size, 3), torch.nan))
    return remember(empty, store, DATASET, batch_size=2, seed=5, world=world)


def test_it_holds_what_every_image_gives(store):
    shares, expected = memory_shares(40, 7), []
    for image in range(7):
        distributions, labelled = token_label_distributions(store.labels[image : image + 1], (3, 3), 3)
        kept = sample_tokens(distributions, labelled, np.array([image]), shares, seed=5)
        expected.append((unit_length(store.tokens[image][kept[0]], torch.bfloat16), distributions[kept]))
    found = filled(store, 40, World.alone(CPU))
    assert len(found.tokens) == len(found.labels) == 37  # the last image has three tokens for its share of 6
    assert torch.equal(found.tokens, torch.cat([tokens for tokens, _ in expected]))
    assert torch.equal(found.labels, torch.cat([labels for _, labels in expected]))


@dataclass(frozen=True)
class Rank(World):
    """One of several ranks that are threads of this process."""

    gathered: Callable[[torch.Tensor], torch.Tensor]

    def all_gather(self, rows: torch.Tensor) -> torch.Tensor:
        return self.gathered(rows)


@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("size", [40, 63])
def test_ranks_build_the_memory_of_one(store, ranks, size):
    """Seven images in batches of two: there are turns in which some ranks have none."""
    expected = filled(store, size, World.alone(CPU))
    built = Shards(ranks).run(lambda rank, _, gather: filled(store, size, Rank(rank, ranks, CPU, gather)))
    for found in built:
        assert torch.equal(found.tokens, expected.tokens)
        assert torch.equal(found.labels, expected.labels)


def test_it_stays_on_the_host_where_a_gpu_has_no_room(monkeypatch, caplog):
    free = {CUDA: 100 * GIB, CPU: 200 * GIB}
    monkeypatch.setattr(retrieval_memory, "free_memory", free.__getitem__)
    on_gpu = World.alone(CUDA)
    assert _home(50 * GIB, on_gpu) == CUDA
    assert not caplog.messages
    assert _home(50 * GIB + 1, on_gpu) == CPU
    assert (
        "takes 50.0 GiB, more than half of the 100.0 GiB that are free on the GPU: it stays on the host"
        in caplog.text
    )
    assert _home(200 * GIB, World.alone(CPU)) == CPU
    with pytest.raises(
        ValueError, match=r"would take 200\.1 GiB on every rank, but only 200\.0 GiB are free"
    ):
        _home(int(200.1 * GIB), on_gpu)
