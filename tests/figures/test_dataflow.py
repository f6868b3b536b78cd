"""The pictures of the kernels' data flow: those of the documentation are the ones that the program draws."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from hcl.figures.dataflow import DIAGRAMS, svg, write_all

DOCS = Path(__file__).parents[2] / "docs"


def test_the_documentation_shows_what_is_drawn(tmp_path):
    write_all(tmp_path)
    committed = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "images/kernels").iterdir()}
    assert committed == {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    pages = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "kernels").iterdir())
    assert all(f"images/kernels/{name}" in pages for name in committed)


@pytest.mark.parametrize("name", DIAGRAMS)
def test_boxes_lie_inside_the_picture_and_apart_from_each_other(name):
    picture = ElementTree.fromstring(svg(DIAGRAMS[name]))
    width, height = map(float, picture.get("viewBox").split()[2:])
    boxes = []
    for rect in picture.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, w, h = (float(rect.get(side)) for side in ("x", "y", "width", "height"))
        assert min(x, y) >= 0
        assert x + w <= width
        assert y + h <= height
        boxes.append((x, y, x + w, y + h))
    assert len(boxes) == len(DIAGRAMS[name].boxes)
    for index, (left, top, right, bottom) in enumerate(boxes):
        for x0, y0, x1, y1 in boxes[index + 1 :]:
            assert x1 <= left or right <= x0 or y1 <= top or bottom <= y0
