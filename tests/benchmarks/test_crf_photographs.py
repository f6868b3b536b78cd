import torch

from benchmarks import crf_photographs
from benchmarks.crf_scenes import read_scenes
from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.scenes import write_scenes
from hcl.evaluation.linear_classifier import save_classifier, untrained_classifier
from pipelines.labelled_images import EvaluationImages
from pipelines.normalise import colours


def test_what_a_classifier_believes_of_photographs_is_written_with_them(tmp_path):
    write_scenes(tmp_path / "scenes", train=1, val=4, size=96)
    save_classifier(untrained_classifier(96, 6, seed=0), tmp_path / "classifier.pth.tar")
    file = tmp_path / "photographs.npz"
    data = ["--data.kind=scenes", f"--data.root={tmp_path / 'scenes'}", "--data.split=val", "--data.limit=3"]
    model = ["--backbone.name=tiny", "--tokens=backbone", f"--classifier={tmp_path / 'classifier.pth.tar'}"]
    how = ["--size=64", "--batch_size=2", "--device=cpu"]
    assert crf_photographs.main([str(file), *data, *model, *how]) == 0

    dataset = open_dataset(DataConfig("scenes", str(tmp_path / "scenes"), "val", limit=3))
    (shown,) = EvaluationImages(dataset, size=64, batch_size=3)
    found = list(read_scenes([file]))
    assert len(found) == 3
    for scene, image, labels in zip(found, colours(shown.images), shown.labels, strict=True):
        assert scene.probabilities.shape == (6, 64, 64)
        assert (scene.probabilities.sum(dim=0) - 1).abs().max() < 1e-2
        assert torch.equal(scene.image, image)
        assert torch.equal(scene.labels, labels.long())
    assert not torch.equal(found[0].probabilities, found[1].probabilities)
