"""A classifier's scores: those of its predictions, with the CRF where it is asked for."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hcl.data.dataset import DataConfig, open_dataset
from hcl.distributed import World
from hcl.evaluation import linear_scores
from hcl.evaluation.crf import CRFConfig
from hcl.evaluation.linear_classifier import logits_of, save_classifier, untrained_classifier
from hcl.evaluation.linear_scores import predictions, score
from hcl.evaluation.protocol import ProtocolConfig
from hcl.evaluation.token_store import TokenStore
from hcl.models.head_files import load_linear_classifier
from pipelines.labelled_images import EvaluationImages
from pipelines.normalise import colours

Batches = Iterable[tuple[Any, torch.Tensor, torch.Tensor]]
ALONE = World.alone(torch.device("cpu"))


@pytest.fixture
def config(scenes) -> ProtocolConfig:
    return ProtocolConfig(data=DataConfig("scenes", str(scenes), "val"), size=64, batch_size=2)


@pytest.fixture
def store() -> TokenStore:
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.normal(size=(3, 16, 5))).bfloat16()
    labels = torch.from_numpy(rng.integers(0, 6, size=(3, 64, 64), dtype=np.uint8))
    labels[:, :4] = 255
    return TokenStore(tokens, torch.rand(3, 2, 4, 4), labels, (4, 4))


def test_scores_are_those_of_the_predictions(config, store):
    classifier = untrained_classifier(5, 6, seed=1)
    (result,) = score(classifier, store, open_dataset(config.data), config, None, ALONE)
    predicted = logits_of(classifier, store.tokens.float(), (4, 4), 64).argmax(dim=1)
    right = (predicted == store.labels)[store.labels != 255].double().mean()
    assert result["name"] == "linear classifier"
    assert result["mean"]["pixel_accuracy"] == pytest.approx(float(right), abs=1e-9)


def test_predictions_come_for_the_images_asked_for(store):
    classifier = untrained_classifier(5, 6, seed=1)
    batches = list(predictions(classifier, store, np.array([2, 0]), 1, ALONE))
    assert [list(batch.indices) for batch in batches] == [[2], [0]]
    assert torch.equal(batches[0].labels, store.labels[[2]])


def test_the_crf_sees_each_image_with_its_own_logits(config, store, monkeypatch):
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def spy(batches: Batches, crf: CRFConfig) -> Iterator[tuple[Any, torch.Tensor]]:
        for own, logits, pictures in batches:
            seen.append((logits, pictures))
            yield own, -logits

    monkeypatch.setattr(linear_scores, "refine_batches", spy)
    dataset, classifier = open_dataset(config.data), untrained_classifier(5, 6, seed=1)
    plain, refined = score(classifier, store, dataset, config, CRFConfig(), ALONE)
    (images,) = EvaluationImages(dataset, size=64)
    assert refined["name"] == "linear classifier, CRF"
    assert refined["mean"] != plain["mean"]
    assert torch.equal(torch.cat([pictures for _, pictures in seen]), colours(images.images))
    whole = logits_of(classifier, store.tokens.float(), (4, 4), 64)
    torch.testing.assert_close(torch.cat([logits for logits, _ in seen]), whole)


def test_pictures_are_those_that_were_normalised(
    labelled_scene: Callable[[], tuple[torch.Tensor, np.ndarray]],
):
    normalised, pixels = labelled_scene()
    assert np.array_equal(colours(normalised)[0].permute(1, 2, 0).numpy(), pixels)


@pytest.fixture
def labelled_scene(scenes) -> Callable[[], tuple[torch.Tensor, np.ndarray]]:
    """The first scene at its own size: normalised by the pipeline, and as PIL reads it."""
    dataset = open_dataset(DataConfig("scenes", str(scenes), "val"))

    def make() -> tuple[torch.Tensor, np.ndarray]:
        (batch,) = EvaluationImages(dataset, size=64, indices=[0], batch_size=1)
        with Image.open(dataset.samples[0].image) as image:
            return batch.images, np.array(image)

    return make


def test_the_file_is_read_back_as_a_published_classifier(tmp_path):
    classifier = untrained_classifier(24, 2, seed=4)
    save_classifier(classifier, tmp_path / "new" / "linear_classifier.pth.tar")
    read = load_linear_classifier(tmp_path / "new" / "linear_classifier.pth.tar")
    assert torch.equal(read.weight, classifier.weight)
    assert torch.equal(read.bias, classifier.bias)


def test_the_ignore_index_is_the_data_sets(config, store):
    store.labels[store.labels == 255] = 7
    dataset = replace(open_dataset(config.data), ignore_index=7)
    (result,) = score(untrained_classifier(5, 6, seed=1), store, dataset, config, None, ALONE)
    assert sum(map(sum, result["confusion"])) == 3 * 60 * 64


@pytest.mark.parametrize("rank", [0, 1])
def test_the_crf_of_a_rank_sees_the_pictures_of_its_own_images(config, store, monkeypatch, rank):
    seen: list[torch.Tensor] = []

    def spy(batches: Batches, crf: CRFConfig) -> Iterator[tuple[Any, torch.Tensor]]:
        for own, logits, pictures in batches:
            seen.append(pictures)
            yield own, logits

    monkeypatch.setattr(linear_scores, "refine_batches", spy)
    dataset, world = open_dataset(config.data), World(rank, 2, torch.device("cpu"))
    score(untrained_classifier(5, 6, seed=1), store, dataset, config, CRFConfig(), world)
    (images,) = EvaluationImages(dataset, size=64, indices=np.arange(3)[world.slice(3)])
    assert torch.equal(torch.cat(seen), colours(images.images))
