"""Tokens get the labels of a classifier or of merged clusters, and a photograph those of its tokens."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hcl.data.scenes import CLASS_NAMES
from hcl.evaluation.linear_classifier import save_classifier, untrained_classifier
from hcl.inference.enlarging import labels_at
from hcl.inference.labelling import MOST, classes, clusters
from hcl.inference.ward import groups_of, ward_tree
from tests.inference.conftest import CLUSTERS


def saved(folder, channels: int = 24, count: int = len(CLASS_NAMES)) -> str:
    path = folder / "linear_classifier.pth.tar"
    save_classifier(untrained_classifier(channels, count, seed=0), path)
    return str(path)


@pytest.mark.parametrize("size", [(9, 7), (64, 41), (3, 200)])
def test_bands_are_enlarged_as_the_whole(monkeypatch, size):
    monkeypatch.setattr("hcl.inference.enlarging.BAND", 500)
    scores = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(scores[None], size=size, mode="bilinear")[0].argmax(dim=0)
    assert torch.equal(labels_at(scores, size).long(), whole)


def test_like_centroids_are_merged():
    spread = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    groups = groups_of(ward_tree(torch.eye(4)[torch.arange(30) % 4] + 0.05 * spread), 4)
    assert groups.unique().tolist() == [0, 1, 2, 3]
    assert all(len(groups[first::4].unique()) == 1 for first in range(4))


def test_as_many_labels_as_clusters_are_the_nearest_centroids_of_both_banks(segmenter, photographs):
    parts = segmenter(photographs[0])
    labels = clusters(segmenter, sum(CLUSTERS))
    group = groups_of(ward_tree(torch.cat(segmenter.banks)), sum(CLUSTERS))
    nearest = (parts.projections @ torch.cat(segmenter.banks).T).argmax(dim=-1)
    assert torch.equal(labels.scores(parts).argmax(dim=0), group[nearest])


def test_a_groups_score_is_the_probability_of_its_centroids(segmenter, photographs):
    parts = segmenter(photographs[0])
    scores = clusters(segmenter, 5).scores(parts)
    assert scores.shape == (5, 4, 4)
    torch.testing.assert_close(scores.exp().sum(dim=0), torch.ones(4, 4), atol=1e-4, rtol=0)


def test_colours_of_clusters_differ_and_stay(segmenter):
    first, again = clusters(segmenter, 12), clusters(segmenter, 12)
    assert np.array_equal(first.colours, again.colours)
    assert len(np.unique(first.colours, axis=0)) == 12


@pytest.mark.parametrize("count", [1, 25, 300])
def test_numbers_of_clusters_that_cannot_be_are_refused(segmenter, count):
    with pytest.raises(ValueError, match=f"clusters is {count}; it must lie between 2 and 24"):
        clusters(segmenter, count)


def test_classes_are_the_classifiers_logits_under_the_names_of_the_training_data(
    segmenter, photographs, tmp_path
):
    labels = classes(segmenter, saved(tmp_path), None)
    assert labels.names == CLASS_NAMES
    parts = segmenter(photographs[0])
    layer = untrained_classifier(24, len(CLASS_NAMES), seed=0)
    expected = parts.tokens @ layer.weight[:, :, 0, 0].T + layer.bias
    torch.testing.assert_close(labels.scores(parts), expected.permute(2, 0, 1).detach())


def test_names_may_come_from_a_file(segmenter, tmp_path):
    (tmp_path / "names.txt").write_text("sky\n\nsea \nland\n")
    labels = classes(segmenter, saved(tmp_path, count=3), str(tmp_path / "names.txt"))
    assert labels.names == ("sky", "sea", "land")


def test_a_classifier_of_another_width_is_refused(segmenter, tmp_path):
    with pytest.raises(ValueError, match="tokens with 30 channels, but these have 24"):
        classes(segmenter, saved(tmp_path, channels=30), None)


def test_classes_of_a_head_that_saw_no_labels_want_names(segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "model", segmenter.model._replace(data=None))
    with pytest.raises(ValueError, match="on images without labels, so there are no names for them: set"):
        classes(segmenter, saved(tmp_path), None)


def test_names_must_be_as_many_as_classes(segmenter, tmp_path):
    with pytest.raises(ValueError, match="has 6 classes, but voc has 21 names"):
        classes(segmenter, saved(tmp_path), "voc")
    with pytest.raises(FileNotFoundError, match=r"class_names is 'pascal'"):
        classes(segmenter, saved(tmp_path), "pascal")


def test_more_classes_than_a_map_can_hold_are_refused(segmenter, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {number}" for number in range(MOST + 1)))
    with pytest.raises(ValueError, match="has 257 classes; a map can hold at most 256"):
        classes(segmenter, saved(tmp_path, count=MOST + 1), str(names))
