"""Batches through the CRF, some of them on their way while others are made."""

import pytest
import torch

from hcl.evaluation import crf
from hcl.evaluation.crf import CRFConfig, refine, refine_batches
from kernels.crf import submit_dense_crf


def exact(ahead):
    return CRFConfig(impl="torch", iterations=2, workers=ahead)


@pytest.fixture
def in_workers(monkeypatch):
    """Marginals that are not there before they are asked for."""

    def submit(probabilities, images, **settings):
        return Pending(submit_dense_crf(probabilities, images, **settings).result())

    monkeypatch.setattr(crf, "submit_dense_crf", submit)


def batches(sizes):
    generator = torch.Generator().manual_seed(0)
    for number, size in enumerate(sizes):
        logits = torch.randn(size, 3, 5, 7, generator=generator)
        yield number, logits, torch.randint(0, 256, logits.shape, generator=generator).to(torch.uint8)


def test_every_batch_comes_back_in_order_as_it_would_alone(in_workers):
    sizes = (2, 1, 1, 3, 1)
    found = list(refine_batches(batches(sizes), exact(2)))
    assert [own for own, _ in found] == [0, 1, 2, 3, 4]
    for (_, marginals), (_, logits, pictures) in zip(found, batches(sizes), strict=True):
        assert torch.equal(marginals, refine(logits, pictures, exact(2)))


@pytest.mark.parametrize(
    ("where", "expected"), [("in_workers", [3, 4, 5, 6, 6, 6]), (None, [1, 2, 3, 4, 5, 6])]
)
def test_only_so_many_images_wait_and_none_that_is_ready(where, expected, request):
    if where is not None:
        request.getfixturevalue(where)
    drawn: list[int] = []

    def watched():
        for own, *rest in batches([2] * 6):
            drawn.append(own)
            yield own, *rest

    assert [len(drawn) for _ in refine_batches(watched(), exact(3))] == expected


@pytest.mark.parametrize(
    ("impl", "expected"), [("torch", "torch"), ("auto", "pydensecrf"), ("pydensecrf", "pydensecrf")]
)
def test_what_computes_is_told(impl, expected):
    told = CRFConfig(impl=impl, iterations=3).described(torch.device("cpu"))
    assert told.startswith(f"dense CRF by {expected}, 3 iterations, smoothness sxy 1 compat 3")


@pytest.mark.parametrize(
    ("ranks", "asked", "workers"), [(None, None, 8), ("3", None, 2), ("16", None, 1), ("3", 5, 5)]
)
def test_ranks_of_one_machine_share_its_processors(monkeypatch, ranks, asked, workers):
    told: list[int] = []

    def submit(probabilities, images, **settings):
        told.append(settings["workers"])
        return Pending(probabilities)

    monkeypatch.setattr(crf, "submit_dense_crf", submit)
    monkeypatch.setattr(crf, "usable_processors", lambda: 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert len(list(refine_batches(batches([1] * 3), CRFConfig(workers=asked)))) == 3
    assert told == [workers] * 3


@pytest.mark.parametrize("where", ["source", "consumer"])
def test_an_error_cancels_what_waits(monkeypatch, where):
    submitted: list[Pending] = []

    def submit(probabilities, images, **settings):
        submitted.append(Pending(probabilities))
        return submitted[-1]

    monkeypatch.setattr(crf, "submit_dense_crf", submit)

    def source():
        yield from batches([2] * 3)
        if where == "source":
            raise KeyboardInterrupt
        yield from batches([2] * 3)

    stream = refine_batches(source(), exact(4))
    next(stream)
    if where == "source":
        with pytest.raises(KeyboardInterrupt):
            next(stream)
    else:
        stream.close()
    assert [pending.cancelled for pending in submitted] == [False, True, True]


class Pending:
    def __init__(self, probabilities):
        self.probabilities, self.cancelled = probabilities, False

    def result(self):
        return self.probabilities

    def cancel(self):
        self.cancelled = True
