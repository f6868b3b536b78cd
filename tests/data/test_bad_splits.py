"""Split files as editors and other programs leave them, and as someone would write them who means harm."""

import os

import pytest

from hcl.data.coco import open_coco
from hcl.data.voc import open_voc

PAIR = "JPEGImages/{0}.jpg SegmentationClass/{0}.png"


def voc_names(root, content: bytes):
    path = root / "ImageSets/Segmentation/val.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return [
        (sample.image.relative_to(root).as_posix(), sample.origin) for sample in open_voc(root, "val").samples
    ]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb\n", "12"),
        (b"a\nb", "12"),
        (b"a\r\nb\r\n", "12"),
        (b"a\rb\r", "12"),
        (b"\xef\xbb\xbfa\nb\n", "12"),
        (b"\n\na\n \t \n\nb\n\n", "36"),
        (b"  a  \n\tb\t\n", "12"),
        (f"{PAIR.format('a')}\n/{PAIR.format('b').replace(' ', '  /')}\n".encode(), "12"),
        (b"JPEGImages/x/../a.jpg ./SegmentationClass/a.png\n../JPEGImages/b\n", "12"),
    ],
)
def test_ends_of_lines_marks_and_blanks_are_no_part_of_a_name(tmp_path, content, lines):
    names = voc_names(tmp_path, content)
    assert names == [
        (f"JPEGImages/{name}.jpg", f"val.txt:{line}") for name, line in zip("ab", lines, strict=True)
    ]


@pytest.mark.parametrize(
    "name", ["ümläut", "象", "no\u00a0break", "form\u2028feed", os.fsdecode(b"latin\xe9")]
)
def test_names_are_the_bytes_of_the_file_system(tmp_path, name):
    assert voc_names(tmp_path, os.fsencode(name))[0][0] == f"JPEGImages/{name}.jpg"


@pytest.mark.parametrize(
    "line",
    [
        "../../secret",
        "../" * 40 + "etc/passwd",
        "x/../../../secret",
        "../secret.jpg SegmentationClass/a.png",
        "JPEGImages/a.jpg ../secret.png",
        "JPEGImages/a.jpg SegmentationClass/../../secret.png",
        "/../secret.jpg /a.png",
        "//..//../secret.jpg a.png",
    ],
)
def test_lines_that_leave_the_root_are_refused(tmp_path, line):
    with pytest.raises(ValueError, match=r"val\.txt:1: .* is outside of the data set's folder"):
        voc_names(tmp_path, line.encode())


@pytest.mark.parametrize("line", ["/etc/passwd /etc/hostname", "//etc/passwd a.png", "/etc/passwd"])
def test_absolute_paths_begin_at_the_root(tmp_path, line):
    ((name, _),) = voc_names(tmp_path, line.encode())
    assert name in ("etc/passwd", "JPEGImages/etc/passwd.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b" \r\n\t\n", "is empty"),
        ("a\nb\n".encode("utf-16"), r"val\.txt is not a text file"),
        (b"\x89PNG\0\0", r"val\.txt is not a text file"),
        (b"a\nmy own image\n", r"val\.txt:2: expected an id.*'my own image'"),
    ],
)
def test_what_is_no_list_is_refused_by_name(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        voc_names(tmp_path, content)


@pytest.mark.parametrize("line", ["COCO_train2014_../../secret", "../../secret", "x_/../../../secret"])
def test_names_of_coco_that_leave_the_root_are_refused(tmp_path, line):
    (tmp_path / "cocostuff10k.txt").write_text(line)
    with pytest.raises(ValueError, match=r"cocostuff10k\.txt:1: .* is outside of"):
        open_coco(tmp_path, "cocostuff10k")


def test_a_line_of_coco_holds_one_name(tmp_path):
    (tmp_path / "cocostuff10k.txt").write_text("000000000009\n000000000025 000000000030\n")
    with pytest.raises(ValueError, match=r"cocostuff10k\.txt:2: expected the name of one image"):
        open_coco(tmp_path, "cocostuff10k")
