"""Jaccard indices of foreground maps, against sets counted by hand."""

import numpy as np
import pytest
import torch

from hcl.data.samples import Dataset
from hcl.evaluation.foreground_scores import UNLABELLED, ForegroundScores, object_labels


def dataset(objects: tuple[int, ...], classes: int = 4) -> Dataset:
    return Dataset("shapes", [], tuple("abcd"[:classes]), object_classes=objects)


def maps(images: int = 7, side: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    predictions = torch.from_numpy(rng.random((images, side, side)) < 0.4)
    labels = torch.from_numpy(rng.integers(3, size=(images, side, side), dtype=np.uint8))
    return predictions, labels


def scored(predictions: torch.Tensor, labels: torch.Tensor):
    metric = ForegroundScores()
    metric.update(predictions, labels)
    return metric.compute()


def jaccard(prediction: torch.Tensor, target: torch.Tensor) -> float:
    return float((prediction & target).sum() / (prediction | target).sum())


def test_objects_others_and_unlabelled_pixels_are_told_apart():
    labels = torch.tensor([[0, 1, 2], [3, 255, 4]], dtype=torch.uint8)
    assert object_labels(labels, dataset((1, 3))).tolist() == [[0, 1, 0], [1, UNLABELLED, UNLABELLED]]


@pytest.mark.parametrize(("objects", "word"), [((), "no"), ((0, 1, 2, 3), "every")])
def test_classes_that_leave_nothing_to_compare_are_refused(objects, word):
    with pytest.raises(ValueError, match=f"{word} class of shapes is an object"):
        object_labels(torch.zeros(1, dtype=torch.uint8), dataset(objects))


def test_every_way_of_counting_is_that_of_sets():
    predictions, labels = maps()
    result = scored(predictions, labels)
    labelled = labels != UNLABELLED
    pairs = list(zip(predictions, labels, labelled, strict=True))
    assert result.jaccard == pytest.approx(jaccard(predictions[labelled], labels[labelled] == 1))
    each = [jaccard(map_[known], label[known] == 1) for map_, label, known in pairs]
    assert result.image_jaccard == pytest.approx(np.mean(each))
    each = [jaccard(map_, label >= 1) for map_, label, _ in pairs]
    assert result.leopart_jaccard == pytest.approx(np.mean(each))


def test_batches_and_processes_add_up_to_the_whole():
    predictions, labels = maps()
    whole, parts, other = ForegroundScores(), ForegroundScores(), ForegroundScores()
    whole.update(predictions, labels)
    parts.update(predictions[:2], labels[:2])
    parts.update(predictions[2:3], labels[2:3])
    other.update(predictions[3:], labels[3:])
    for name in ("confusion", "image_sums", "images"):
        both = torch.stack([getattr(parts, name), getattr(other, name)])
        torch.testing.assert_close(whole._reductions[name](both), getattr(whole, name))


def test_an_image_without_foreground_does_not_enter_the_mean():
    predictions = torch.tensor([[[True, False]], [[False, False]]])
    labels = torch.tensor([[[1, 1]], [[0, 0]]], dtype=torch.uint8)
    assert scored(predictions, labels) == (0.5, 0.5, 0.5)


def test_unlabelled_images_score_zero():
    result = scored(torch.ones(1, 2, 2, dtype=torch.bool), torch.full((1, 2, 2), 2, dtype=torch.uint8))
    assert result == (0, 0, 1)
    assert scored(torch.zeros(1, 1, 1, dtype=torch.bool), torch.zeros(1, 1, 1, dtype=torch.uint8)) == (
        0,
        0,
        0,
    )


def test_labels_that_are_class_ids_are_refused():
    with pytest.raises(ValueError, match=r"labels \[7\]"):
        scored(torch.zeros(1, 1, 1, dtype=torch.bool), torch.full((1, 1, 1), 7, dtype=torch.uint8))
