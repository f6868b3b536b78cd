"""Every mask gives the class ids that it stores, or is refused with its name: never other labels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcl.data.samples import Dataset, Sample, read_label
from tests.data.corpus import Case, damaged_checksum, png, raw, turned, write

IDS = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
CLASSES = ("background", "thing", "stuff")


def mask(values=IDS, mode="P"):
    image = Image.fromarray(np.asarray(values, np.uint8))
    if mode == "P":
        image.putpalette([255 - i // 3 for i in range(768)])
    return image if mode == "P" else image.convert(mode)


def saved(values=IDS, mode="P", **how):
    return lambda path: mask(values, mode).save(path, **how)


USED = [
    Case("palette.png", saved()),
    Case("palette of 2 bits.png", saved(bits=2)),
    Case("palette of 4 bits.png", saved(bits=4)),
    Case("palette, one colour clear.png", saved(transparency=0)),
    Case("gray.png", saved(mode="L")),
    Case("ids, \xfcml\xe4ut.png", saved()),
]
REFUSED = [
    Case("out of range.png", saved(IDS + 1), r"\[3\], which are not ids of the 3 classes"),
    Case("of 254.png", saved(np.full((3, 4), 254)), r"\[254\], which are not ids"),
    Case("another size.png", saved(IDS.T), r"is 3x4, but its image .* is 4x3"),
    Case("half the size.png", saved(IDS[:1, :2]), r"is 2x1, but its image .* is 4x3"),
    Case("colours.png", saved(mode="RGB"), "is a PNG stored as RGB"),
    Case("alpha.png", saved(mode="LA"), "is a PNG stored as LA"),
    Case("1 bit.png", saved(mode="1"), "is a PNG stored as 1"),
    Case("gray of 2 bits.png", raw(png(IDS, bits=2, color=0)), "is a PNG stored as L;2"),
    Case("gray of 4 bits.png", raw(png(IDS, bits=4, color=0)), "is a PNG stored as L;4"),
    Case("gray of 16 bits.png", raw(png(IDS[..., None], bits=16, color=0)), "is a PNG stored as I;16B"),
    Case("jpeg renamed.png", saved(mode="L", format="JPEG"), "is a JPEG"),
    Case("webp renamed.png", saved(mode="RGB", format="WEBP"), "is a WEBP"),
    Case("bitmap renamed.png", saved(format="BMP"), "is a BMP"),
    Case("gif renamed.png", saved(format="GIF"), "is not a complete image"),
    Case("empty.png", raw(b""), "is empty"),
    Case("page.png", raw(b"<html>"), "is not a complete image"),
    Case("cut.png", raw(png(IDS, color=0)[:50]), "is not a complete image"),
    Case("cut in the pixels.png", raw(png(np.zeros((99, 99)), color=0)[:-20]), "is not a complete image"),
    Case("another checksum.png", raw(damaged_checksum(png(IDS, color=0))), "is not a complete image"),
    Case("bomb.png", raw(png(IDS, color=0, claim=(100_000, 100_000))), "claims to have more than"),
    Case("folder.png", Path.mkdir, "is a folder"),
    Case("round in circles.png", lambda path: path.symlink_to(path.name), "cannot be accessed"),
    Case("link to nothing.png", lambda path: path.symlink_to("gone"), "is a broken link"),
    Case("not there.png", lambda path: None, "does not exist"),
]


@pytest.fixture
def read(tmp_path, write_image):
    def read(case):
        (path,) = write(tmp_path / "masks", case)
        sample = Sample(write_image(tmp_path / "image.png", 4, 3), path, "val.txt:4")
        return read_label(sample, Dataset("d", [sample], CLASSES))

    return read


@pytest.mark.parametrize("case", USED, ids=lambda case: case.name)
def test_masks_give_what_they_store(read, case):
    np.testing.assert_array_equal(read(case), IDS)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_bad_masks_are_refused_by_name_and_line(read, case):
    with pytest.raises(ValueError, match=rf"{case.name} .*{case.problem}.*\(val\.txt:4\)"):
        read(case)


def test_neither_image_nor_mask_is_turned(tmp_path, write_image):
    image, label = tmp_path / "a.jpg", tmp_path / "a.png"
    turned(image)
    exif = Image.Exif()
    exif[274] = 6
    values = np.random.default_rng(0).integers(0, 3, (48, 48))
    mask(values).save(label, exif=exif)
    sample = Sample(image, label, "val.txt:1")
    np.testing.assert_array_equal(read_label(sample, Dataset("d", [sample], CLASSES)), values)


def test_an_image_that_went_bad_is_named_when_its_mask_is_read(tmp_path):
    write(tmp_path, USED[0])
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    sample = Sample(tmp_path / "a.jpg", tmp_path / USED[0].name, "val.txt:1")
    with pytest.raises(ValueError, match=r"a\.jpg is not a complete image"):
        read_label(sample, Dataset("d", [sample], CLASSES))
