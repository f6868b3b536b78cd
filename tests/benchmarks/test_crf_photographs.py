import numpy as np
import torch

from benchmarks import crf_photographs
from benchmarks.crf_scenes import read_scenes
from hcl.data.dataset import DataConfig
from hcl.data.scenes import write_scenes
from hcl.distributed import World
from hcl.evaluation.linear import LinearConfig, open_given
from hcl.evaluation.linear_classifier import save_classifier, untrained_classifier
from hcl.evaluation.linear_scores import predictions
from hcl.evaluation.protocol import BackboneOverride
from hcl.evaluation.token_store import stored_tokens
from pipelines.labelled_images import EvaluationImages
from pipelines.normalise import colours


def test_what_a_classifier_predicts_of_photographs_is_read_back_with_them(tmp_path):
    write_scenes(tmp_path / "scenes", train=1, val=4, size=96)
    classifier_file, file = tmp_path / "classifier.pth.tar", tmp_path / "photographs.npz"
    save_classifier(untrained_classifier(96, 6, seed=0), classifier_file)
    data = ["--data.kind=scenes", f"--data.root={tmp_path / 'scenes'}", "--data.split=val", "--data.limit=3"]
    model = ["--backbone.name=tiny", "--tokens=backbone", f"--classifier={classifier_file}"]
    how = ["--size=64", "--batch_size=2", "--device=cpu"]
    assert crf_photographs.main([str(file), *data, *model, *how]) == 0

    config = LinearConfig(
        data=DataConfig("scenes", str(tmp_path / "scenes"), "val", limit=3),
        backbone=BackboneOverride("tiny"),
        tokens="backbone",
        classifier=str(classifier_file),
        size=64,
    )
    world = World.alone(torch.device("cpu"))
    classifier, dataset, extractor = open_given(config, world)
    with torch.no_grad(), stored_tokens(config, dataset, extractor, world) as store:
        (predicted,) = predictions(classifier, store, np.arange(3), 3, world)
    (shown,) = EvaluationImages(dataset, size=64, batch_size=3)
    probabilities, images, labels = (torch.stack(part) for part in zip(*read_scenes([file]), strict=True))
    torch.testing.assert_close(probabilities, predicted.scores.softmax(dim=1))
    assert torch.equal(images, colours(shown.images))
    assert torch.equal(labels, predicted.labels.long())
    assert not torch.equal(probabilities[0], probabilities[1])
