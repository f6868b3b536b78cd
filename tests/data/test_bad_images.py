"""Every file of the corpus is used, or refused with its name and the reason."""

import re
import signal
from collections.abc import Iterator

import pytest

from hcl.data.checks import check_images, faulty_samples, image_problem
from hcl.data.folder import open_folder
from hcl.data.samples import Dataset, Sample
from tests.data.corpus import REFUSED, USED, write

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of files that it reads nevertheless


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A test that waits, for the writer of a pipe say, fails."""

    def fail(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, fail)
    signal.alarm(30)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("case", USED, ids=lambda case: ascii(case.name))
def test_odd_images_are_used(tmp_path, case):
    (path,) = write(tmp_path / "images", case)
    assert image_problem(path) is None


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_bad_images_are_refused_with_a_reason(tmp_path, case):
    (path,) = write(tmp_path, case)
    assert re.search(case.problem, image_problem(path))
    with pytest.raises(
        (ValueError, FileNotFoundError), match=rf"{re.escape(case.name)} .*{case.problem}.*\(here:1"
    ):
        check_images(Dataset("d", [Sample(path, None, "here:1")]))


def test_a_folder_of_everything_names_each_bad_file_once(tmp_path):
    write(tmp_path / "images", *USED, *REFUSED)
    dataset = open_folder(tmp_path / "images")
    bad = {dataset.samples[index].origin for index in faulty_samples(dataset)}
    folders = {"folder.jpg"}  # is looked into, and no image
    assert bad == {case.name for case in REFUSED} - folders
    assert {sample.origin for sample in dataset.samples} - bad == {case.name for case in USED}


def test_names_are_printable_and_on_one_line(tmp_path):
    names = [b"two\nlines.jpg", b"latin\xe9.jpg", b"\x1b[31mred.jpg"]
    for name in names:
        (tmp_path / "d").mkdir(exist_ok=True)
        open(bytes(tmp_path / "d") + b"/" + name, "wb").close()
    with pytest.raises(ValueError, match="is empty") as refusal:
        check_images(open_folder(tmp_path / "d"))
    lines = str(refusal.value).splitlines()
    assert len(lines) == 3
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert r"two\nlines.jpg" in str(refusal.value)


def test_an_image_that_is_listed_twice_is_an_error_that_names_both_lines(tmp_path, write_image):
    image = write_image(tmp_path / "a.jpg")
    dataset = Dataset("d", [Sample(image, None, f"s.txt:{line}") for line in (1, 4)])
    with pytest.raises(ValueError, match=r"a\.jpg \(s\.txt:4\) is listed twice, first in s\.txt:1"):
        check_images(dataset)
    assert list(faulty_samples(dataset)) == [1]
