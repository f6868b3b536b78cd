"""The scores: the published program's numbers, and what the confusion matrix promises."""

import numpy as np
import pytest
import torch

from hcl.evaluation.matching import hungarian, many_to_one_by_precision
from hcl.evaluation.metrics import CLUSTERING_SCORES, ClusteringScores, Scores, SegmentationScores


@pytest.mark.parametrize(
    ("case", "matching"),
    [
        ("over", "precision"),
        ("coco_over", "precision"),
        ("hungarian", "hungarian"),
        ("hungarian27", "hungarian"),
    ],
)
def test_clusters_score_as_published(golden, case, matching):
    vectors = golden("cluster_metrics")
    wanted = {name.split(".")[1]: value for name, value in vectors.items() if name.startswith(f"{case}.")}
    metric = ClusteringScores(int(wanted["num_clusters"]), int(wanted["num_classes"]), matching=matching)
    metric.update(torch.from_numpy(wanted["pred"]), torch.from_numpy(wanted["gt"]))
    scores = metric.compute()
    assert scores.miou == pytest.approx(float(wanted["miou"]), abs=1e-6)
    assert scores.published_accuracy == pytest.approx(float(wanted["published_acc"]), abs=1e-6)
    for name in ("tp", "fp", "fn"):
        np.testing.assert_array_equal(getattr(scores, name).numpy(), wanted[name])


@pytest.mark.parametrize(("case", "classes"), [("pascal", 21), ("coco", 27)])
def test_predicted_classes_score_as_published(golden, case, classes):
    vectors = golden("linear_metrics")
    metric = SegmentationScores(classes)
    metric.update(torch.from_numpy(vectors[f"{case}.pred"]), torch.from_numpy(vectors[f"{case}.gt"]))
    scores = metric.compute()
    assert scores.miou == pytest.approx(float(vectors[f"{case}.miou_all_classes"]), abs=1e-6)
    assert scores.miou_present == pytest.approx(float(vectors[f"{case}.miou_present_classes"]), abs=1e-6)
    assert scores.pixel_accuracy == pytest.approx(float(vectors[f"{case}.accuracy"]), abs=1e-6)
    np.testing.assert_allclose(scores.class_iou.numpy(), vectors[f"{case}.iou"], atol=1e-6)


def test_batches_add_up_to_the_whole():
    predictions, labels = torch.randint(5, (4, 9, 7)), torch.randint(3, (4, 9, 7), dtype=torch.uint8)
    whole, parts = ClusteringScores(5, 3), ClusteringScores(5, 3)
    whole.update(predictions, labels)
    parts.update(predictions[:1], labels[:1])
    parts.update(predictions[1:], labels[1:])
    assert torch.equal(whole.confusion, parts.confusion)


def test_counting_leaves_its_arguments_alone():
    predictions, labels = torch.tensor([0, 3, 1]), torch.tensor([1, 255, 0], dtype=torch.uint8)
    ClusteringScores(4, 2).update(predictions, labels)
    assert predictions.tolist() == [0, 3, 1]
    assert labels.tolist() == [1, 255, 0]


def test_processes_are_summed():
    metric = ClusteringScores(3, 2)
    assert metric._reductions["confusion"] is not None
    states = torch.stack([torch.ones(3, 2, dtype=torch.int64)] * 2)
    assert torch.equal(metric._reductions["confusion"](states), torch.full((3, 2), 2))


def test_ignored_pixels_do_not_count():
    metric = SegmentationScores(2)
    metric.update(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 255, 255], dtype=torch.uint8))
    assert metric.compute().tp.tolist() == [1, 1]
    assert metric.compute().miou == 1


def test_classes_are_matched_anew_in_one_score_alone():
    """As the open Hummingbird evaluation does to predicted classes before it counts."""
    scores = Scores(torch.tensor([[1, 6, 0], [5, 2, 0], [0, 0, 3]]))
    assert scores.miou == pytest.approx((1 / 12 + 2 / 13 + 1) / 3)
    assert scores.matched_miou == pytest.approx((5 / 8 + 6 / 9 + 1) / 3)
    assert Scores(torch.diag(torch.tensor([4, 0, 2]))).matched_miou == pytest.approx(2 / 3)


def test_an_absent_class_counts_only_in_the_mean_over_all():
    metric = SegmentationScores(4)
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 1], dtype=torch.uint8))
    scores = metric.compute()
    assert scores.present.tolist() == [True, True, False, False]
    assert (scores.miou, scores.miou_present) == (0.5, 1)


def test_nothing_labelled_scores_zero():
    assert set(Scores(torch.zeros(3, 3, dtype=torch.int64)).numbers(CLUSTERING_SCORES).values()) == {0.0}


def test_precision_ties_go_to_the_lowest_class():
    assert many_to_one_by_precision(torch.tensor([[2, 5, 5], [4, 4, 1], [0, 0, 0]])).tolist() == [1, 0, 0]


def test_hungarian_matches_by_iou_and_sends_the_rest_to_class_zero():
    confusion = torch.tensor([[0, 9, 0], [1, 3, 0], [6, 0, 0], [0, 0, 4]])
    assert hungarian(confusion).tolist() == [1, 0, 0, 2]


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0, 1], [0], r"\(2,\) and \(1,\)"),
        ([0, 4], [0, 1], "prediction 4"),
        ([0, 1], [0, 7], r"labels \[7\]"),
    ],
)
def test_what_is_out_of_range_is_named(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        ClusteringScores(4, 3).update(torch.tensor(predictions), torch.tensor(labels, dtype=torch.uint8))


def test_a_matrix_without_clusters_is_refused():
    with pytest.raises(ValueError, match="at least 1 cluster"):
        ClusteringScores(0, 3)


def test_another_ignore_index_is_honoured():
    predictions, labels = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 7], dtype=torch.uint8)
    for metric in (SegmentationScores(2, ignore_index=7), ClusteringScores(2, 2, ignore_index=7)):
        metric.update(predictions, labels)
        assert metric.compute().confusion.tolist() == [[1, 0], [0, 1]]
        with pytest.raises(ValueError, match=r"labels \[9\]"):
            metric.update(predictions, torch.tensor([0, 1, 9], dtype=torch.uint8))


def test_hungarian_goes_by_iou_and_not_by_dice():
    """Of which the sum is greatest for the classes 0, 2 and 1."""
    assert hungarian(torch.tensor([[3, 0, 1], [0, 1, 3], [9, 4, 0]])).tolist() == [1, 2, 0]


@pytest.mark.parametrize("classes", [1, 256])
def test_numbers_of_classes_that_labels_cannot_tell_apart_are_refused(classes):
    with pytest.raises(ValueError, match=f"255.*4 and {classes}"):
        ClusteringScores(4, classes)
