"""What DALI makes of odd images is what they show; what it cannot decode is skipped and counted, or named."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hcl.data.checks import image_problem
from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.folder import open_folder
from hcl.data.images import DecodeError
from hcl.data.samples import Dataset, Sample
from pipelines import decoding
from pipelines.decoding import undecodable
from pipelines.draws import ViewsConfig
from pipelines.labelled_images import EvaluationImages
from pipelines.normalise import MEAN, STD
from pipelines.training_views import TrainingViews
from pipelines.usable import usable
from tests.data.corpus import HIDDEN, REFUSED, SIDE, USED, colours, write

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of files that it reads nevertheless
PLAIN = ViewsConfig(size=24, crop_scale=(1.0, 1.0), color_probability=0.0, blur_probability=0.0)


def shown(images):
    """Colours (B, H, W, 3) in [0, 255] of normalised images."""
    return 255 * (images.permute(0, 2, 3, 1).numpy() * STD + MEAN)


def halved(colours):
    """(H, W, 3) at half the size, bilinear and antialiased."""
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(colours, 2, 0)]
    return np.stack([channel.resize((24, 24), Image.Resampling.BILINEAR) for channel in channels], 2)


@pytest.fixture
def odd(tmp_path) -> Dataset:
    write(tmp_path / "images", *USED)
    return open_folder(tmp_path / "images")


def test_odd_images_show_their_stored_colours_in_evaluation(odd):
    for batch in EvaluationImages(odd, size=SIDE):
        for index, image in zip(batch.indices, shown(batch.images), strict=True):
            expected = colours(odd.samples[index].image)
            if expected.shape == image.shape:
                assert np.abs(image - expected).max() <= 1.01, odd.samples[index].origin


def test_odd_images_show_their_stored_colours_in_training(odd):
    indices = np.arange(len(odd))
    (batch,) = TrainingViews(odd, PLAIN, seed=0).batches(1, [indices])
    for index, view in zip(batch.indices, shown(batch.views[0]), strict=True):
        expected = colours(odd.samples[index].image)
        if expected.shape == (SIDE, SIDE, 3):
            inside = np.abs(view - halved(expected))[1:-1, 1:-1]  # the border is Pillow's and DALI's own
            assert inside.max() <= 1.01, odd.samples[index].origin
    assert np.isfinite(batch.views[1]).all()


def test_skip_leaves_out_what_cannot_be_used_and_counts_it(tmp_path, caplog):
    write(tmp_path / "images", *USED, *REFUSED, *HIDDEN)
    bad = {case.name for case in (*REFUSED, *HIDDEN)} - {"folder.jpg"}
    config = DataConfig("folder", str(tmp_path / "images"), on_error="skip")
    dataset = usable(open_dataset(config), config.on_error)
    assert {sample.origin for sample in dataset.samples} == {case.name for case in USED}
    assert len(dataset.skipped) == len(bad)
    for name in bad:
        assert any(f"{name} " in line for line in dataset.skipped), name
    assert f"{len(bad)} of the {len(bad) + len(USED)} images" in caplog.text
    assert f"... and {len(bad) - 10} more" in caplog.text
    assert sum(len(batch.indices) for batch in EvaluationImages(dataset, size=16)) == len(USED)


def test_raise_names_what_cannot_be_used(tmp_path):
    write(tmp_path / "images", *USED, *REFUSED[:3])
    config = DataConfig("folder", str(tmp_path / "images"))
    with pytest.raises(ValueError, match=r"(empty|page)\.(jpg|png)") as refusal:
        usable(open_dataset(config), config.on_error)
    assert len(str(refusal.value).splitlines()) == 3


@pytest.mark.parametrize("case", HIDDEN, ids=lambda case: case.name)
def test_damage_found_during_a_run_names_the_one_file(tmp_path, case):
    (bad,) = write(tmp_path, case)
    assert image_problem(bad) is None
    assert undecodable([bad]) == {bad}
    good = write(tmp_path, *USED[:4])
    dataset = Dataset("d", [Sample(path, None, f"s:{i}") for i, path in enumerate([*good, bad])])
    with pytest.raises(DecodeError) as refusal:
        list(EvaluationImages(dataset, size=16))
    assert str(refusal.value).splitlines()[1:] == [f"{bad} cannot be decoded (s:4)"]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory", RuntimeError),
        ("encountered:\n\nFile mapping failed: a.jpg", OSError),
    ],
)
def test_no_image_is_at_fault_where_a_gpu_has_no_memory_or_the_host_no_files_left(
    odd, monkeypatch, said, kind
):
    def full():
        raise RuntimeError(said)

    pipeline = SimpleNamespace(feed_input=lambda name, paths: None, run=full)
    monkeypatch.setattr(decoding, "_build", lambda device, threads: pipeline)
    with pytest.raises(kind, match=re.escape(said)):
        undecodable([sample.image for sample in odd.samples])


def test_no_usable_image_is_an_error(tmp_path):
    write(tmp_path / "images", *REFUSED[:2])
    with pytest.raises(ValueError, match=r"none of the 2 images of folder-images can be used:\n.*empty\.jpg"):
        usable(open_folder(tmp_path / "images"), "skip")


def test_an_image_with_a_bad_mask_is_skipped_as_a_whole(labelled):
    dataset = labelled(*(np.full((20, 20), value) for value in (0, 1, 9, 2)))
    with pytest.raises(ValueError, match=r"2_mask\.png holds the values \[9\]"):
        list(EvaluationImages(dataset, size=16))
    rest = usable(dataset, "skip", labels=True)
    assert [sample.origin for sample in rest.samples] == ["val.txt:1", "val.txt:2", "val.txt:4"]
    assert len(rest.skipped) == 1
    assert "2_mask.png holds the values [9]" in rest.skipped[0]
    assert [
        label.unique().tolist() for batch in EvaluationImages(rest, size=16) for label in batch.labels
    ] == [
        [0],
        [1],
        [2],
    ]
    assert len(usable(dataset, "skip")) == 4  # without labels, masks do not count


def test_what_was_left_out_before_is_told_too(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"junk")
    dataset = replace(open_folder(tmp_path), skipped=("other.png is gone",))
    found = usable(dataset, "skip")
    assert found.skipped[0] == "other.png is gone"
    assert "bad.png" in found.skipped[1]
