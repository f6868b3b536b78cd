"""The components command: queries given and chosen, and where their like is found."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from hcl.commands import evaluate
from hcl.inference.component_queries import Looked, chosen_queries
from hcl.inference.component_search import Gallery, query_at


@pytest.fixture
def components(checkpoint, tmp_path):
    """Runs the command with a few settings; returns its exit status."""

    def run(*settings: str) -> int:
        fixed = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out"), "--size", "64"]
        return evaluate.main(["components", *fixed, "--device", "cpu", *settings])

    return run


def found(tmp_path: Path) -> list[dict]:
    return json.loads((tmp_path / "out" / "components.json").read_text())["components"]


@pytest.fixture(scope="session")
def looked(segmenter, photographs) -> list[Looked]:
    return [
        Looked(path, parts) for path, parts in zip(photographs, segmenter.batch(photographs), strict=True)
    ]


def test_queries_are_chosen_from_the_training_data_and_drawn(components, tmp_path, capsys):
    assert components("--queries", "3", "--matches", "2") == 0
    entries = found(tmp_path)
    assert len(entries) == 3
    assert len({(entry["image"], tuple(entry["cell"])) for entry in entries}) == 3
    picture = Image.open(tmp_path / "out" / "components.png")
    assert picture.width > 2 * picture.height / 3
    assert "3 components drawn" in capsys.readouterr().out


def test_a_point_is_the_token_under_it(components, segmenter, photographs, tmp_path):
    name = photographs[0].stem
    assert components("--points+", f"{name}:71,0", "--points+", f"{photographs[1]}:0,40") == 0
    first, second = found(tmp_path)
    assert first["image"] == str(photographs[0])
    assert first["cell"] == [0, 3]
    assert first["cluster"] == segmenter(photographs[0]).clusters[0, 3]
    assert second["cell"] == [2, 0]


def test_matches_are_the_nearest_tokens_of_the_cluster_in_other_images(looked):
    for image in looked:
        query = query_at(image.path, image.parts, (1, 2), by_cluster=True)
        gallery = Gallery([query], 2)
        for other in looked:
            gallery.look_at(*other)
        expected = {}
        for other in looked:
            member = other.parts.clusters == query.cluster
            if other is not image and member.any():
                similarity = (other.parts.projections @ query.projection).where(member, torch.tensor(-2.0))
                expected[other.path] = float(similarity.max())
        best = sorted(expected.values(), reverse=True)[:2]
        assert [match.similarity for match in gallery.matches[0]] == pytest.approx(best)
        for match in gallery.matches[0]:
            assert match.place.member[match.place.cell]


def test_the_nearest_tokens_need_no_clusters(components, published, tmp_path, scenes):
    data = ["--data.kind", "scenes", "--data.root", str(scenes), "--data.split", "val"]
    head = ["--checkpoint", str(published), "--backbone.name", "tiny"]
    assert components(*head, *data, "--match", "nearest", "--queries", "2") == 0
    for entry in found(tmp_path):
        assert entry["cluster"] is None
        assert len(entry["matches"]) == 2
        cosines = [match["cosine"] for match in entry["matches"]]
        assert cosines == sorted(cosines, reverse=True)


def test_chosen_queries_differ(looked):
    queries = chosen_queries(looked, 3, 2, by_cluster=False)
    projections = torch.stack([query.projection for query in queries])
    assert all(looked_at.parts.foreground.any() for looked_at in looked)
    for query in queries:
        image = next(image for image in looked if image.path == query.place.path)
        assert image.parts.foreground[query.place.cell]
    assert (projections @ projections.T).fill_diagonal_(-1).max() < 0.999


def test_a_folder_of_photographs_will_do(components, photographs, tmp_path):
    data = ["--data.kind", "folder", "--data.root", str(photographs[0].parent)]
    assert components(*data, "--queries", "1", "--images", "3") == 0
    (entry,) = found(tmp_path)
    assert Path(entry["image"]).parent == photographs[0].parent


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("train_00000.jpg", "must have the form IMAGE:x,y"),
        ("train_00000.jpg:1,-2", "must have the form IMAGE:x,y"),
        ("none.jpg:1,2", "'none.jpg' of a point is neither a file nor an image of scenes-train"),
        ("{first}:72,0", "lies outside"),
    ],
)
def test_points_that_are_nowhere_are_refused(components, photographs, capsys, point, message):
    assert components("--points", point.format(first=photographs[0])) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_without_clusters_is_refused(components, published, capsys):
    assert components("--checkpoint", str(published), "--backbone.name", "tiny") == 2
    assert "use --match nearest" in capsys.readouterr().err
    nearest = ["--match", "nearest"]
    assert components("--checkpoint", str(published), "--backbone.name", "tiny", *nearest) == 2
    assert "does not record what it was trained on" in capsys.readouterr().err
