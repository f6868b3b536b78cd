"""The linear classifier: it learns, it stops on NaN, its file is the published one."""

import numpy as np
import pytest
import torch

from hcl.data.dataset import DataConfig, Dataset, Sample
from hcl.evaluation.linear_classifier import LinearClassifier
from hcl.evaluation.linear_probe import LinearProbeConfig, _refuse_non_finite, score, step
from hcl.models.weights import load_linear_classifier
from pipelines.labelled_images import LabelledBatch


@pytest.fixture
def batch(images) -> LabelledBatch:
    labels = torch.zeros(2, 64, 64, dtype=torch.uint8)
    labels[1] = 1
    labels[:, :8] = 255
    return LabelledBatch(images, labels, np.arange(2))


def sgd(classifier: LinearClassifier, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(classifier.convolution.parameters(), lr, momentum=0.9)


def test_logits_have_the_size_of_the_image(extractor, images):
    assert LinearClassifier(extractor, 3)(images).shape == (2, 3, 64, 64)


def test_only_the_convolution_learns(extractor, batch):
    classifier = LinearClassifier(extractor, 2)
    before = {name: tensor.clone() for name, tensor in extractor.head.state_dict().items()}
    optimizer = sgd(classifier)
    losses = [step(classifier, optimizer, batch, 255) for _ in range(20)]
    assert losses[0] == pytest.approx(np.log(2), abs=0.05)
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in extractor.head.state_dict().items())


def test_the_loss_is_the_mean_over_labelled_pixels(extractor, batch):
    classifier = LinearClassifier(extractor, 2)
    expected = torch.nn.functional.cross_entropy(
        classifier(batch.images), batch.labels.long(), ignore_index=255
    )
    assert step(classifier, sgd(classifier), batch, 255) == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_of_ignored_pixels_is_no_loss(extractor, batch):
    classifier = LinearClassifier(extractor, 2)
    ignored = batch._replace(labels=torch.full_like(batch.labels, 255))
    assert step(classifier, sgd(classifier), ignored, 255) == 0
    assert torch.isfinite(classifier.convolution.weight).all()


def test_a_loss_that_is_not_finite_stops_with_the_images_named(batch, tmp_path):
    dataset = Dataset("d", [Sample(tmp_path / f"{name}.jpg", None, "") for name in "ab"])
    _refuse_non_finite(1.0, 0, batch, dataset)
    with pytest.raises(FloatingPointError, match=r"nan in epoch 3.*a\.jpg, .*b\.jpg"):
        _refuse_non_finite(float("nan"), 2, batch, dataset)


def test_scores_are_those_of_the_predictions(extractor, batch):
    classifier = LinearClassifier(extractor, 2)
    dataset = Dataset("d", [None] * 2, ("a", "b"))
    scores = score(classifier, [batch], dataset)
    predicted = classifier(batch.images).argmax(dim=1)[:, 8:]
    right = (predicted == batch.labels[:, 8:]).float().mean()
    assert scores.pixel_accuracy == pytest.approx(float(right), abs=1e-6)
    assert int((scores.tp + scores.fn).sum()) == 2 * 56 * 64


def test_the_file_is_read_back_as_a_published_classifier(extractor, tmp_path):
    classifier = LinearClassifier(extractor, 2, seed=4)
    classifier.save(tmp_path / "new" / "linear_classifier.pth.tar")
    read = load_linear_classifier(tmp_path / "new" / "linear_classifier.pth.tar")
    assert torch.equal(read.weight, classifier.convolution.weight)
    assert torch.equal(read.bias, classifier.convolution.bias)


def test_the_kind_of_data_sets_the_protocol():
    voc = LinearProbeConfig(data=DataConfig("voc", "x", "val")).protocol
    coco = LinearProbeConfig(data=DataConfig("coco", "x", "Coco164kFull_Stuff_Coarse_7")).protocol
    assert voc == ("trainaug", 448, "resize", (4,))
    assert coco == ("Coco164kFull_Stuff_Coarse", 320, "shorter-crop", (1, 4))


def test_settings_come_before_the_protocol():
    data = DataConfig("coco", "x", "val2017")
    config = LinearProbeConfig(data=data, train_split="cocostuff10k", size=224, mode="resize", milestones=[])
    assert config.protocol == ("cocostuff10k", 224, "resize", ())


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"epochs": 0}, "epochs is 0"), ({"lr": -1.0}, "lr is -1"), ({"crop_size": 0}, "crop_size is 0")],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        LinearProbeConfig(data=DataConfig("voc", "x", "val"), **setting)
