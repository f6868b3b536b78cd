"""Scores of single images are those of their own pixels."""

import pytest
import torch

from hcl.evaluation.image_scores import image_class_iou, image_confusions
from hcl.evaluation.metrics import Scores, SegmentationScores


def test_confusions_add_up_to_that_of_all_images():
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randint(3, (5, 7, 6), generator=generator)
    labels = torch.randint(3, (5, 7, 6), generator=generator, dtype=torch.uint8)
    labels[:, 0] = 255
    confusions = image_confusions(predictions, labels, 3)
    metric = SegmentationScores(3)
    metric.update(predictions, labels)
    assert torch.equal(confusions.sum(dim=0), metric.confusion)
    one = Scores(confusions[2]).class_iou
    torch.testing.assert_close(image_class_iou(confusions)[2], one)


def test_a_class_that_an_image_does_not_hold_has_no_iou():
    labels = torch.tensor([[[0, 1]], [[0, 0]]], dtype=torch.uint8)
    class_iou = image_class_iou(image_confusions(labels, labels, 3))
    assert class_iou.isnan().tolist() == [[False, False, True], [False, True, True]]


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, 3), "differ in shape"),
        (torch.full((1, 2, 2), 3), torch.zeros(1, 2, 2), "ids range from 3 to 3"),
        (torch.zeros(1, 2, 2), torch.full((1, 2, 2), 7), "ids range from 7 to 7"),
    ],
)
def test_what_does_not_fit_is_refused(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        image_confusions(predictions.long(), labels.to(torch.uint8), 3)


def test_an_id_below_0_is_refused():
    with pytest.raises(ValueError, match="-1"):
        image_confusions(torch.tensor([[[0, -1]]]), torch.zeros(1, 1, 2, dtype=torch.uint8), 3)
