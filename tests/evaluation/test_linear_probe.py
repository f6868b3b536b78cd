"""Training the linear classifier: it learns, it stops on NaN, ranks share a batch."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hcl.commands import evaluate
from hcl.data.dataset import DataConfig
from hcl.data.samples import Dataset, Sample
from hcl.distributed import World
from hcl.evaluation import linear_probe
from hcl.evaluation.linear_classifier import logits_of, untrained_classifier
from hcl.evaluation.linear_probe import LinearProbeConfig, Probe, _refuse_non_finite, step, train
from hcl.models.head_files import load_linear_classifier
from pipelines.draws import ProbeConfig
from pipelines.labelled_images import LabelledBatch

ALONE = World.alone(torch.device("cpu"))


@pytest.fixture
def batch(images) -> LabelledBatch:
    labels = torch.zeros(2, 64, 64, dtype=torch.uint8)
    labels[1] = 1
    labels[:, :8] = 255
    return LabelledBatch(images, labels, np.arange(2))


def probe(extractor, world: World | SimpleNamespace = ALONE) -> Probe:
    classifier = untrained_classifier(extractor.channels, 2, seed=0)
    return Probe(classifier, extractor, torch.optim.SGD(classifier.parameters(), 0.1, momentum=0.9), world)


def test_only_the_convolution_learns(extractor, batch):
    before = {name: tensor.clone() for name, tensor in extractor.head.state_dict().items()}
    trained = probe(extractor)
    losses = [step(trained, batch, 255).item() for _ in range(20)]
    assert losses[0] == pytest.approx(np.log(2), abs=0.05)
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in extractor.head.state_dict().items())


def test_the_loss_is_the_mean_over_labelled_pixels(extractor, batch):
    trained = probe(extractor)
    tokens = extractor(batch.images).tokens.clone()
    logits = logits_of(trained.classifier, tokens, (4, 4), 64)
    expected = torch.nn.functional.cross_entropy(logits, batch.labels.long(), ignore_index=255)
    (gradient,) = torch.autograd.grad(expected, trained.classifier.weight)
    assert step(trained, batch, 255).item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(trained.classifier.weight.grad, gradient)


def test_a_batch_of_ignored_pixels_is_no_loss(extractor, batch):
    trained = probe(extractor)
    ignored = batch._replace(labels=torch.full_like(batch.labels, 255))
    assert step(trained, ignored, 255) == 0
    assert torch.isfinite(trained.classifier.weight).all()


def rank(hears: torch.Tensor | None = None, says: list[torch.Tensor] | None = None) -> SimpleNamespace:
    """One rank of two, which notes what it says and hears what the other has said."""

    def add(message: torch.Tensor) -> torch.Tensor:
        if says is not None:
            says.append(message)
        return message if hears is None else message + hears

    return SimpleNamespace(all_reduce=add, device=torch.device("cpu"))


def test_ranks_take_the_step_of_the_whole_batch(extractor, batch):
    whole = probe(extractor)
    expected = step(whole, batch, 255).item()
    halves = [LabelledBatch(*(part[i : i + 1] for part in batch)) for i in range(2)]
    said: list[torch.Tensor] = []
    for half in halves:
        step(probe(extractor, rank(says=said)), half, 255)
    for own, heard in [(halves[0], said[1]), (None, said[0] + said[1])]:
        together = probe(extractor, rank(hears=heard))
        assert step(together, own, 255).item() == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(together.classifier.weight, whole.classifier.weight)


def test_a_loss_that_is_not_finite_stops_with_the_images_named(tmp_path):
    dataset = Dataset("d", [Sample(tmp_path / f"{name}.jpg", None, "") for name in "ab"])
    _refuse_non_finite(1.0, 0, np.arange(2), dataset)
    with pytest.raises(FloatingPointError, match=r"nan in epoch 3.*a\.jpg, .*b\.jpg"):
        _refuse_non_finite(float("nan"), 2, np.arange(2), dataset)


def test_the_kind_of_data_sets_the_protocol():
    voc = LinearProbeConfig(data=DataConfig("voc", "x", "val"))
    coco = LinearProbeConfig(data=DataConfig("coco", "x", "Coco164kFull_Stuff_Coarse_7"))
    assert (voc.schedule, voc.frame, voc.view_size) == (("trainaug", (4,)), (448, "resize"), 448)
    assert coco.schedule == ("Coco164kFull_Stuff_Coarse", (1, 4))
    assert (coco.frame, coco.view_size) == ((320, "shorter-crop"), 320)


def test_settings_come_before_the_protocol():
    data = DataConfig("coco", "x", "val2017")
    config = LinearProbeConfig(data=data, train_split="cocostuff10k", size=224, mode="resize", milestones=[])
    assert config.schedule == ("cocostuff10k", ())
    assert config.frame == (224, "resize")
    assert config.view_size == 224


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"epochs": 0}, "epochs is 0"), ({"lr": -1.0}, "lr is -1"), ({"crop_size": 0}, "crop_size is 0")],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        LinearProbeConfig(data=DataConfig("voc", "x", "val"), **setting)


def test_gradients_of_the_step_before_are_forgotten(extractor, batch):
    trained = probe(extractor)
    step(trained, batch, 255)
    logits = logits_of(trained.classifier, extractor(batch.images).tokens.clone(), (4, 4), 64)
    loss = torch.nn.functional.cross_entropy(logits, batch.labels.long(), ignore_index=255)
    (expected,) = torch.autograd.grad(loss, trained.classifier.weight)
    step(trained, batch, 255)
    torch.testing.assert_close(trained.classifier.weight.grad, expected)


def test_training_takes_the_steps_that_its_settings_say(extractor, batch, monkeypatch):
    made, orders, taken = [], [], []

    class Views:
        """Stands in for `ProbeViews`."""

        def __init__(self, dataset: Dataset, views: ProbeConfig, **settings: Any) -> None:
            self.dataset = dataset
            made.append((views, settings))

        def batches(self, epoch: int, parts: list[np.ndarray]) -> Iterator[LabelledBatch]:
            orders.append((epoch, np.concatenate(parts).tolist()))
            return iter([batch] * len(parts))

    def noted(trained: Probe, _: LabelledBatch, ignore_index: int) -> torch.Tensor:
        (group,) = trained.optimizer.param_groups
        taken.append((group["lr"], group["momentum"], group["weight_decay"], ignore_index))
        trained.optimizer.step()
        return torch.tensor(float(len(taken)))

    monkeypatch.setattr(linear_probe, "ProbeViews", Views)
    monkeypatch.setattr(linear_probe, "step", noted)
    views = ProbeConfig(rotation=3)
    config = LinearProbeConfig(
        **{"data": DataConfig("coco", "x", "val2017"), "views": views, "epochs": 3, "batch_size": 2},
        **{"lr": 0.3, "momentum": 0.8, "weight_decay": 0.02, "milestones": [2], "seed": 4},
    )
    dataset = Dataset("d", [None] * 5, ("a", "b"), ignore_index=7)
    losses = train(untrained_classifier(24, 2, seed=0), extractor, dataset, config, ALONE)
    cpu = torch.device("cpu")
    settings = {"size": 320, "mode": "shorter-crop", "seed": 4, "device": cpu, "threads": 2}
    assert made == [(views, settings)]
    assert [epoch for epoch, _ in orders] == [0, 1, 2]
    assert all(sorted(order) == list(range(5)) for _, order in orders)
    assert orders[0][1] != orders[1][1]
    assert [lr for lr, *_ in taken] == pytest.approx([0.3] * 6 + [0.03] * 3)
    assert {tuple(rest) for _, *rest in taken} == {(0.8, 0.02, 7)}
    assert losses == [2, 5, 8]


def test_the_seed_draws_the_classifier(command, tmp_path):
    settings = ["--epochs=1", "--lr=1e-12", "--seed=5"]
    assert evaluate.main(["linear-probe", *command, *settings]) == 0
    trained = load_linear_classifier(tmp_path / "out" / "linear_classifier.pth.tar")
    torch.testing.assert_close(trained.weight, untrained_classifier(24, 6, seed=5).weight)
