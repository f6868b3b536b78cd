import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks import overclustering, published
from hcl.evaluation.metrics import ClusteringScores

pytest.importorskip("faiss")
SMALL = [
    *("--images", "6", "--grid", "4", "--channels", "12", "--resolution", "10", "--dimensions", "5"),
    *("--clusters", "7", "--seeds", "2", "--restarts", "2", "--iterations", "6"),
    *("--published_iterations", "3", "--published_images", "2"),
]


@pytest.mark.parametrize("case", ["over", "coco_over"])
def test_comparing_masks_gives_the_published_scores_and_ours(golden, case):
    vectors = golden("cluster_metrics")
    wanted = {name.split(".")[1]: value for name, value in vectors.items() if name.startswith(f"{case}.")}
    clusters, classes = int(wanted["num_clusters"]), int(wanted["num_classes"])
    masks = published.cluster_scores(wanted["pred"], wanted["gt"], clusters, classes)
    metric = ClusteringScores(clusters, classes)
    metric.update(torch.from_numpy(wanted["pred"]), torch.from_numpy(wanted["gt"]))
    ours = metric.compute()
    for name in ("tp", "fp", "fn"):
        np.testing.assert_array_equal(getattr(masks, name), wanted[name])
        np.testing.assert_array_equal(getattr(masks, name), getattr(ours, name).numpy())
    assert masks.miou == pytest.approx(ours.miou, abs=1e-12)


def test_the_report_tells_measured_from_extrapolated(capsys):
    report = overclustering.main(SMALL)
    assert json.loads(capsys.readouterr().out) == report
    ours, share, whole = (report[name] for name in ("ours", "published", "published_extrapolated"))
    assert report["tokens"] == {"from": "generated", "shape": [6, 16, 12]}
    assert len(ours["kmeans_s"]) == len(ours["inertia"]) == 2
    assert share["kmeans"]["iterations"] == 3
    assert share["scoring"]["pixels"] == 200
    assert share["scoring"]["miou"] == pytest.approx(share["scoring_of_the_same_pixels_ours"]["miou"])
    assert whole["kmeans_s"] == pytest.approx(share["kmeans"]["seconds"][0] * 2 * 2 * 6 / 3)
    assert whole["scoring_s"] == pytest.approx(share["scoring"]["seconds"] * 2 * 600 / 200)
    assert report["ours_with_the_published_share_of_kmeans"]["one_run"]["iterations"] <= 6


def test_tokens_come_from_a_file(tmp_path):
    made = overclustering.generated(6, 4, 12, 10)
    path = tmp_path / "tokens.safetensors"
    save_file({"tokens": made.tokens.half(), "labels": made.labels}, path)
    report = overclustering.main([*SMALL, "--tokens", str(path)])
    assert report["tokens"] == {"from": str(path), "shape": [6, 16, 12]}


def test_a_file_without_labels_is_refused(tmp_path):
    path = tmp_path / "tokens.safetensors"
    save_file({"tokens": torch.ones(2, 4, 3)}, path)
    with pytest.raises(ValueError, match="holds no labels"):
        overclustering.opened(path)
    save_file({"tokens": torch.ones(2, 4, 3), "labels": torch.ones(3, 5, 5)}, path)
    with pytest.raises(ValueError, match=r"\(3, 5, 5\)"):
        overclustering.opened(path)


def test_published_pca_keeps_what_ours_keeps():
    tokens = overclustering.generated(3, 8, 10, 10).tokens.flatten(0, 1)
    theirs = torch.from_numpy(published.reduced_tokens(tokens.numpy(), 4))
    ours = overclustering.fit_pca([tokens], 4, tokens.device).project(tokens)
    # Axes are free to point either way.
    torch.testing.assert_close(theirs.abs(), ours.abs(), rtol=1e-3, atol=1e-3)
