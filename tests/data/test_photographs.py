"""Photographs are read upright and in colour, and what cannot be read is named."""

import numpy as np
import pytest
from PIL import Image

from hcl.data.photographs import upright
from tests.data.corpus import REFUSED, USED, colours, write


@pytest.mark.parametrize("case", USED, ids=lambda case: case.name)
def test_odd_files_have_the_colours_that_training_sees(tmp_path, case):
    (path,) = write(tmp_path, case)
    with Image.open(path) as image:
        turn = image.getexif().get(274, 1)
    found = np.asarray(upright(path)).astype(float)
    expected = colours(path)
    if turn == 6:
        expected = np.rot90(expected, -1)
    elif turn == 2:
        expected = expected[:, ::-1]
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_bad_file_is_named(tmp_path, case):
    (path,) = write(tmp_path, case)
    with pytest.raises((ValueError, FileNotFoundError), match=case.problem) as error:
        upright(path)
    assert path.name in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jpg does not exist"):
        upright(tmp_path / "none.jpg")


def test_text_named_as_an_image_is_refused(tmp_path):
    (tmp_path / "letter.jpg").write_text("Dear Sir or Madam")
    with pytest.raises(ValueError, match=r"letter\.jpg is not a complete image"):
        upright(str(tmp_path / "letter.jpg"))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4)),
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        None,
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match="array"):
        upright(array)
