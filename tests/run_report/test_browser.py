"""The page in a browser: quiet, alone, readable on a telephone and in the dark."""

from pathlib import Path

import pytest

from hcl.commands import evaluate
from tests.browser import Watched, brightness, is_blank

pytestmark = pytest.mark.browser


@pytest.fixture
def address(page) -> str:
    return page.as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1200, "dark")])
def test_the_page_is_quiet_and_fits(chromium, address, width, scheme):
    watched = Watched(chromium, width, scheme=scheme)
    watched.page.goto(address)
    closed = watched.page.locator("details:not([open]) > summary")
    while closed.count():
        closed.first.click()
    assert watched.overflow() <= 0
    picture = watched.screenshot(full_page=True)
    assert not is_blank(picture)
    assert (brightness(picture) < 80) == (scheme == "dark")
    assert watched.complaints == []
    assert watched.foreign(address) == []
    assert watched.page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")


def test_sections_are_reached_by_their_links(chromium, address):
    watched = Watched(chromium, 800)
    watched.page.goto(address)
    for name in ("Training", "Worst images"):
        watched.page.get_by_role("link", name=name).click()
        heading = watched.page.get_by_role("heading", name=name, exact=True)
        assert 0 <= heading.bounding_box()["y"] < 800


def test_markup_in_a_name_makes_no_element(chromium, tmp_path, finished):
    name = "<img src=x onerror=alert(1)>"
    run = tmp_path / name
    run.mkdir()
    log = (finished / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(log)
    output = Path(tmp_path / "report.html")
    assert evaluate.main(["report", str(run), "--output", str(output)]) == 0
    watched = Watched(chromium, 800)
    watched.page.goto(output.as_uri())
    assert watched.page.locator("h1").inner_text() == name
    assert watched.page.locator("img").count() == 0
    assert watched.complaints == []
