import json

import numpy as np
import pytest
import torch

from benchmarks import crf_agreement
from benchmarks.crf_agreement import exact_labels
from benchmarks.crf_scenes import generate_scenes, read_scenes
from kernels.crf import dense_crf


def test_tiles_in_plain_torch_give_the_reference():
    (scene,) = generate_scenes(1, classes=4, side=37)
    labels, _, skipped = exact_labels(scene, 0, torch.device("cpu"))
    exact = dense_crf(scene.probabilities[None], scene.image[None], impl="torch")[0]
    assert skipped == 0
    assert (labels == exact.argmax(dim=0)).float().mean() > 0.999
    labels, _, skipped = exact_labels(scene, 1e-3, torch.device("cpu"))
    assert skipped > 0.2
    assert (labels == exact.argmax(dim=0)).float().mean() > 0.999


def test_scenes_from_files_are_the_scenes_saved(tmp_path):
    scenes = list(generate_scenes(2, classes=3, side=20))
    probabilities, images, labels = (torch.stack(part) for part in zip(*scenes, strict=True))
    logits = probabilities.log()
    np.savez(tmp_path / "a.npz", logits=logits, images=images, labels=labels)
    np.savez(tmp_path / "b.npz", logits=logits[:1], images=images[:1])
    read = list(read_scenes([tmp_path / "a.npz", tmp_path / "b.npz"]))
    assert len(read) == 3
    for saved, found in zip(scenes, read, strict=False):
        torch.testing.assert_close(found.probabilities, saved.probabilities)
        assert torch.equal(found.image, saved.image)
        assert torch.equal(found.labels, saved.labels)
    assert read[2].labels is None
    np.savez(tmp_path / "c.npz", images=images)
    with pytest.raises(ValueError, match=r"c\.npz.*logits"):
        next(read_scenes([tmp_path / "c.npz"]))


def test_the_command_prints_agreement_and_scores(capsys):
    pytest.importorskip("pydensecrf")
    report = crf_agreement.main(["--images", "1", "--side", "48", "--classes", "3", "--tolerance", "1e-3"])
    assert json.loads(capsys.readouterr().out) == report
    results = report["results"]
    exact = results["exact, tolerance 0.001"]
    assert results["pydensecrf"]["agreement"] == 1
    assert 0.97 < exact["agreement"] < 1
    assert 0 < exact["tile_pairs_skipped"] < 1
    assert exact["miou"] > results["no CRF"]["miou"]
    assert results["pydensecrf"]["speedup"] == 1
    assert exact["speedup"] == results["pydensecrf"]["seconds_per_image"] / exact["seconds_per_image"]
