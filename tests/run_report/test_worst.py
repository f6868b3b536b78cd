"""The worst images come first, by the IoU that the page says."""

import numpy as np
import torch

from hcl.data.samples import Dataset, Sample
from hcl.run_report.looked_at import LookedAt
from hcl.run_report.worst import Prediction, worst_images


def looked_at(tmp_path, images: int) -> LookedAt:
    samples = [Sample(tmp_path / f"{number}.jpg", None, "") for number in range(images)]
    return LookedAt(
        Dataset("made", samples, ("a", "b", "c")),
        np.zeros((images, 4, 4, 3), np.uint8),
        torch.zeros(images, 4, 8),
        torch.zeros(images, 1, 2, 2),
        None,
        (2, 2),
    )


def test_the_lowest_iou_comes_first(tmp_path):
    labels = torch.zeros(3, 4, 4, dtype=torch.uint8)
    classes = labels.clone()
    classes[1, :2] = 1
    classes[2] = 1
    found = worst_images(Prediction(classes, "made"), looked_at(tmp_path, 3), labels, shown=2)
    assert [(image.name, image.iou) for image in found] == [("2.jpg", 0.0), ("1.jpg", 0.25)]
    assert [(score.name, score.iou) for score in found[1].classes] == [("a", 0.5), ("b", 0.0)]


def test_an_image_without_labels_is_left_out(tmp_path):
    labels = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    labels[1] = 2
    found = worst_images(Prediction(labels.clamp(max=2), "made"), looked_at(tmp_path, 2), labels, shown=5)
    assert [(image.name, image.iou) for image in found] == [("1.jpg", 1.0)]
