"""The page in a browser, on a real server: drop, click, slide, refine."""

import re
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from hcl.explore.command import _listen
from tests.browser import Watched, is_blank

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(app) -> Iterator[str]:
    listening = _listen(0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture
def watched(chromium, address) -> Watched:
    watched = Watched(chromium, 1200)
    watched.page.goto(address)
    at_rest(watched)
    return watched


def at_rest(watched: Watched) -> None:
    watched.page.wait_for_timeout(200)  # a slider waits before it asks
    watched.page.wait_for_selector("#here[aria-busy=false]")


def layer(watched: Watched) -> str:
    return watched.page.locator("#layer").get_attribute("src")


def share(watched: Watched) -> int:
    return int(re.search(r"(\d+) %", watched.page.locator("#status").inner_text())[1])


def slide_to(watched: Watched, clusters: int) -> None:
    watched.page.locator("#clusters").fill(str(clusters))
    at_rest(watched)


def test_a_photograph_is_explored(watched, address, tmp_path, scene):
    pytest.importorskip("pydensecrf")
    page = watched.page
    assert page.locator("#strip li").count() == 3
    (tmp_path / "scene.png").write_bytes(scene)
    page.locator("#file").set_input_files(tmp_path / "scene.png")
    page.wait_for_selector("#name:text-is('scene.png')")
    at_rest(watched)
    assert "components are in this photograph" in page.locator("#status").inner_text()
    page.locator("#stage").click(position={"x": 30, "y": 30})
    at_rest(watched)
    assert page.locator("#neighbours li").count() == 3
    assert page.locator("#mark").is_visible()
    heat = layer(watched)
    page.get_by_label("this component").check()
    at_rest(watched)
    coarse, before = layer(watched), share(watched)
    assert coarse != heat
    slide_to(watched, 2)
    assert page.locator("#clusters-value").inner_text() == "2"
    assert share(watched) > before
    slide_to(watched, 6)
    page.get_by_label("refine with a CRF").check()
    at_rest(watched)
    assert layer(watched) != coarse
    assert len(layer(watched)) > len(coarse)
    assert not is_blank(watched.screenshot())
    assert watched.complaints == []
    assert watched.foreign(address) == []


def test_a_neighbour_is_opened_at_its_place(watched):
    page = watched.page
    page.locator("#stage").click(position={"x": 40, "y": 40})
    at_rest(watched)
    name = page.locator("#neighbours button").first.get_attribute("title")
    page.locator("#neighbours button").first.click()
    page.wait_for_selector(f"#name:text-is('{name}')")
    at_rest(watched)
    assert page.locator("#mark").is_visible()
    assert page.locator("#strip [aria-current=true]").get_attribute("title") == name


def test_the_mark_moves_by_the_keyboard(watched):
    page = watched.page
    page.locator("#stage").focus()
    places = []
    for key in ("Enter", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
        at_rest(watched)
        places.append(page.locator("#mark").bounding_box())
    assert places[1]["x"] < places[0]["x"]
    assert places[2]["y"] > places[1]["y"]


def test_what_is_no_photograph_is_said(watched, tmp_path):
    page = watched.page
    (tmp_path / "notes.png").write_text("no image")
    page.locator("#file").set_input_files(tmp_path / "notes.png")
    page.wait_for_selector("#error:not([hidden])")
    assert "not a complete image" in page.get_by_role("alert").inner_text()
    page.locator("#strip button").first.click()
    page.wait_for_selector("#error", state="hidden")


def test_nothing_overflows_on_a_telephone(chromium, address):
    watched = Watched(chromium, 360, scheme="dark")
    watched.page.goto(address)
    at_rest(watched)
    watched.page.locator("#stage").click(position={"x": 40, "y": 40})
    at_rest(watched)
    assert watched.overflow() <= 0
    assert watched.complaints == []
