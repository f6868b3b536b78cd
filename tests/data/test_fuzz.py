"""Bytes changed at random: a reader gives what was written, or an error that names the file.

HCL_FUZZ says how many cases a reader gets.
"""

import os
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from hcl.data.checks import image_problem
from hcl.data.coco import open_coco
from hcl.data.samples import Dataset, Sample, read_label
from hcl.data.voc import open_voc
from tests.data.corpus import encoded, png

VALUES = np.random.default_rng(0).integers(0, 5, (24, 31)).astype(np.uint8)
CLASSES = ("a", "b", "c", "d", "e")
bounded = settings(
    max_examples=int(os.environ.get("HCL_FUZZ", "300")),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def palette_mask() -> bytes:
    image, buffer = Image.fromarray(VALUES), BytesIO()
    image.putpalette([255 - i // 3 for i in range(768)])
    image.save(buffer, "PNG")
    return buffer.getvalue()


def outcome(read: Callable[[], Any]) -> tuple[Any, str]:
    """What a reader gives, or the message of its ValueError."""
    try:
        return read(), ""
    except ValueError as error:
        return None, str(error)


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of the files with bytes overwritten, left out or put in, at up to four places."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        end = start + draw(st.sampled_from([0, 1, 1, 4, 50, len(content)]))
        content[start:end] = draw(st.binary(max_size=8))
    return bytes(content)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of bytes that it reads nevertheless
@seed(0)
@bounded
@given(content=damaged([encoded(f) for f in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "MPO")]))
def test_damaged_images_have_a_problem_or_none_and_nothing_is_raised(tmp_path, content):
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    problem = image_problem(path)
    assert problem is None or (problem and str(path) not in problem)


@pytest.mark.filterwarnings("ignore")
@seed(0)
@bounded
@given(content=damaged([palette_mask(), png(VALUES, color=0)]))
def test_damaged_masks_are_refused_by_name_or_give_the_labels_that_were_written(tmp_path, content):
    image, label = tmp_path / "image.png", tmp_path / "mask.png"
    image.write_bytes(png(VALUES, color=0))
    label.write_bytes(content)
    sample = Sample(image, label, "val.txt:1")
    labels, message = outcome(lambda: read_label(sample, Dataset("d", [sample], CLASSES)))
    if labels is None:
        assert str(label) in message
    else:
        np.testing.assert_array_equal(labels, VALUES)


LISTS = [b"2007_000033\n2007_000042\n", b"JPEGImages/a.jpg SegmentationClass/a.png\r\n", b"\xef\xbb\xbfa\n"]


@seed(0)
@bounded
@given(content=damaged(LISTS) | st.binary(max_size=60))
def test_damaged_lists_are_refused_by_name_or_stay_inside_the_root(tmp_path, content):
    folder = tmp_path / "ImageSets/Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    for path, open_it in (
        (folder / "val.txt", lambda: open_voc(tmp_path, "val")),
        (tmp_path / "cocostuff10k.txt", lambda: open_coco(tmp_path, "cocostuff10k")),
    ):
        path.write_bytes(content)
        dataset, message = outcome(open_it)
        assert dataset is not None or path.name in message
        for sample in dataset.samples if dataset else ():
            for file in (sample.image, sample.label):
                assert file.is_relative_to(tmp_path)
                assert ".." not in file.parts
