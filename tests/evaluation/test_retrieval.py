"""The retrieval protocol: which split is remembered, and what the search and the scores are told."""

import pytest
import torch
import torch.nn.functional as F

from hcl.data.dataset import DataConfig
from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.label_retrieval import Memory, classes_of_pixels, retrieve, unit_length
from hcl.evaluation.metrics import SegmentationScores
from hcl.evaluation.retrieval import RetrievalConfig, score
from hcl.evaluation.token_store import TokenStore

ALONE = World.alone(torch.device("cpu"))


def test_labels_are_those_of_the_neighbours_that_are_asked_for():
    generator = torch.Generator().manual_seed(0)
    tokens, labels = torch.randn(60, 4, generator=generator), torch.arange(60) % 3
    memory = Memory(unit_length(tokens, torch.float32), F.one_hot(labels, 3).float())
    masks = torch.randint(3, (5, 8, 8), generator=generator).to(torch.uint8)
    masks[:, :2] = 7
    queries = torch.randn(5, 4, 4, generator=generator).bfloat16()
    store = TokenStore(queries, torch.zeros(5, 1, 2, 2), masks, (2, 2))
    dataset = Dataset("d", [None] * 5, ("a", "b", "c"), ignore_index=7)
    found = []
    for neighbours, temperature in ((30, 0.5), (3, 0.5), (30, 0.02)):
        data = DataConfig("voc", "x", "val")
        config = RetrievalConfig(data=data, batch_size=2, neighbours=neighbours, temperature=temperature)
        found.append(score(store, memory, dataset, config, ALONE).confusion)
        settings = {"neighbours": neighbours, "temperature": temperature}
        votes = retrieve(queries.flatten(0, 1), memory, **settings).view(5, 4, 3)
        metric = SegmentationScores(3, ignore_index=7)
        metric.update(classes_of_pixels(votes, (2, 2), 8), masks)
        assert torch.equal(found[-1], metric.compute().confusion)
    assert len({str(confusion) for confusion in found}) == 3


@pytest.mark.parametrize(
    ("kind", "split"),
    [("voc", "trainaug"), ("coco", "Coco164kFull_Stuff_Coarse"), ("scenes", "train")],
)
def test_the_kind_of_data_sets_the_split_that_is_remembered(kind, split):
    data = DataConfig(kind, "x", "val2017")
    assert RetrievalConfig(data=data).training_split == split
    assert RetrievalConfig(data=data, train_split="other").training_split == "other"
