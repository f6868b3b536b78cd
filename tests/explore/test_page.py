"""What the page asks and what is answered; what cannot be answered is said with a status of its own."""

import base64
import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from hcl.commands import evaluate
from hcl.explore import command
from hcl.explore.explorer import UPLOADS_KEPT
from tests.explore.conftest import MOST_BYTES, encoded

PNG = {"Content-Type": "image/png"}
NOISE = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)


def layer(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(64))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def ask_part(client, key: str, **values):
    return client.get(f"/api/photographs/{key}/part", params={"x": 0.5, "y": 0.5, "clusters": 6, **values})


def upload(client, content: bytes, kind: str = "image/png"):
    return client.post("/api/photographs", content=content, headers={"Content-Type": kind})


@pytest.mark.parametrize("address", ["/", "/explore.css", "/explore.js"])
def test_the_page_is_served_and_asks_nobody_else(client, address):
    answer = client.get(address)
    assert answer.status_code == 200
    assert "http" not in answer.text.replace("http-equiv", "")


def test_the_page_learns_what_there_is(client):
    page = client.get("/api/page").json()
    assert page["data"] == "scenes-val"
    assert len(page["images"]) == 3
    assert (page["clusters"], page["most_clusters"]) == (6, 12)


def test_a_part_of_an_image_is_found_there_and_elsewhere(client):
    part = ask_part(client, "data-1", x=0.1, y=0.9).json()
    rows, columns = part["grid"]
    assert part["cell"] == {"row": int(0.9 * rows), "column": int(0.1 * columns)}
    mask, heat = layer(part["mask"]), layer(part["heat"])
    assert mask.shape == heat.shape == (rows, columns, 4)
    own = part["cell"]["row"], part["cell"]["column"]
    assert mask[own][3] == 0
    assert heat[own][3] == heat[..., 3].max()
    assert part["share"] == pytest.approx((mask[..., 3] == 0).mean())
    assert [found["key"] for found in part["neighbours"]] != []
    assert {found["key"] for found in part["neighbours"]} == {"data-0", "data-2"}
    similarities = [found["similarity"] for found in part["neighbours"]]
    assert similarities == sorted(similarities, reverse=True)
    assert all(-1 <= value <= 1 + 1e-5 for value in similarities)


def test_a_neighbour_leads_to_its_own_place(client):
    found = ask_part(client, "data-0").json()["neighbours"][0]
    there = ask_part(client, found["key"], x=found["x"], y=found["y"]).json()
    back = {other["key"]: other["similarity"] for other in there["neighbours"]}
    assert back["data-0"] >= found["similarity"] - 1e-5


def test_more_clusters_make_a_component_smaller(client):
    shares = [ask_part(client, "data-0", clusters=clusters).json()["share"] for clusters in (2, 4, 8, 12)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < shares[0]


def test_a_part_at_the_far_corner_is_the_last_token(client):
    part = ask_part(client, "data-0", x=1, y=1).json()
    assert [part["cell"]["row"] + 1, part["cell"]["column"] + 1] == part["grid"]


def test_all_components_are_shown(client):
    answer = client.get("/api/photographs/data-0/components", params={"clusters": 6}).json()
    colours = np.unique(layer(answer["layer"]).reshape(-1, 4), axis=0)
    assert len(colours) == answer["components"] <= answer["clusters"] == 6


def test_a_crf_draws_components_to_pixels(client):
    pytest.importorskip("pydensecrf")
    picture = client.get("/api/photographs/data-0/picture")
    assert picture.headers["Content-Type"] == "image/jpeg"
    size = Image.open(io.BytesIO(picture.content)).size
    mask = layer(ask_part(client, "data-0", crf=True).json()["mask"])
    assert mask.shape[1::-1] == size
    answer = client.get("/api/photographs/data-0/components", params={"clusters": 6, "crf": True}).json()
    assert layer(answer["layer"]).shape[1::-1] == size


def test_a_photograph_that_is_sent_is_looked_at(client, scene):
    answer = upload(client, scene)
    assert answer.status_code == 201
    part = ask_part(client, answer.json()["key"]).json()
    assert len(part["neighbours"]) == 3
    assert client.get(f"/api/photographs/{answer.json()['key']}/picture").status_code == 200


def test_the_oldest_photograph_gives_way(client, scene):
    keys = [upload(client, scene).json()["key"] for _ in range(UPLOADS_KEPT + 1)]
    assert ask_part(client, keys[0]).status_code == 404
    assert all(ask_part(client, key).status_code == 200 for key in keys[1:])


@pytest.mark.parametrize(
    ("content", "kind", "status", "message"),
    [
        (b"GIF89a", "image/gif", 415, "image/gif"),
        (b"x", "text/html", 415, "text/html"),
        (b"x", "", 415, "unknown type"),
        (b"x", "multipart/form-data; boundary=x", 415, "multipart/form-data"),
        (b"", "image/png", 422, "empty"),
        (b"no image", "image/png", 422, "not a complete image"),
        (encoded(NOISE)[:900], "image/png", 422, "not a complete image"),
        (encoded(np.zeros((8, 8), np.uint8), "GIF"), "image/png", 422, "not a complete image"),
        (encoded(np.zeros((200, 101, 3), np.uint8)), "image/png", 413, "101x200 pixels"),
        (claiming(20_000, 20_000), "image/png", 422, "claims to have more"),
        (claiming(10_000, 10_000), "image/png", 413, "10000x10000 pixels"),
        (claiming(65_000, 10), "image/png", 422, "one side"),
        (bytes(MOST_BYTES + 1), "image/png", 413, "larger than 0.06 MB"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_what_is_no_small_photograph_is_refused(client, content, kind, status, message):
    answer = upload(client, content, kind)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text


def test_a_body_that_does_not_tell_its_length_is_read_no_further_than_allowed(client):
    read = []

    def endless():
        for piece in range(1000):
            read.append(piece)
            yield bytes(10_000)

    answer = client.post("/api/photographs", content=endless(), headers=PNG)
    assert answer.status_code == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 30, str(MOST_BYTES + 1)])
def test_a_length_that_is_wrong_is_refused(client, length):
    answer = client.post("/api/photographs", content=b"x", headers={**PNG, "Content-Length": length})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "key",
    [
        *(
            "data-3",
            "data--1",
            "data-1e0",
            "data-٣",
            "data-" + "9" * 5000,
            "upload-x",
            "..",
            "%2e%2e%2fetc%2fpasswd",
        ),
        *("data-0%00", "..%5c..%5c", "%2fetc%2fpasswd", "file:%2f%2f%2fetc%2fpasswd"),
    ],
)
@pytest.mark.parametrize("what", ["picture", "part?x=0&y=0&clusters=3", "components?clusters=3"])
def test_a_key_is_no_path(client, key, what):
    answer = client.get(f"/api/photographs/{key}/{what}")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "address", ["/static/index.html", "/explore.py", "/..%2fapp.py", "/docs", "/openapi.json"]
)
def test_nothing_else_is_served(client, address):
    assert client.get(address).status_code == 404


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clusters": 1}, "must lie between 2 and 20"),
        ({"clusters": 21}, "must lie between 2 and 20"),
        ({"clusters": "many"}, "clusters"),
        ({"x": 1.5}, "x"),
        ({"y": "nan"}, "y"),
        ({"crf": "maybe"}, "crf"),
    ],
)
def test_a_question_that_is_not_right_is_told_so(client, values, message):
    answer = ask_part(client, "data-0", **values)
    assert answer.status_code == 422
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clusters=1"], "must be in ascending order"),
        (["--leaves=30"], "must be in ascending order"),
        (["--images=0"], "images is 0"),
        (["--most_megabytes=0"], "most_megabytes is 0"),
        (["--port=70000"], "port is 70000"),
        ([], "there is no checkpoint file nowhere.pt"),
    ],
)
def test_settings_that_are_not_right_are_told_in_one_line(scenes, capsys, arguments, message):
    data = ["--data.kind=scenes", f"--data.root={scenes}", "--data.split=val", "--port=0"]
    assert evaluate.main(["explore", "--checkpoint=nowhere.pt", *data, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_missing_extra_is_named(scenes, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    data = ["--data.kind=scenes", f"--data.root={scenes}", "--data.split=val"]
    assert evaluate.main(["explore", "--checkpoint=nowhere.pt", *data]) == 2
    error = capsys.readouterr().err
    assert "needs the package uvicorn, which is not installed: pip install '.[explore]'" in error


def test_a_port_that_is_taken_is_named(scenes, capsys):
    with command._listen(0) as taken:
        port = taken.getsockname()[1]
        data = ["--data.kind=scenes", f"--data.root={scenes}", "--data.split=val", f"--port={port}"]
        assert evaluate.main(["explore", "--checkpoint=nowhere.pt", *data]) == 2
    assert f"port {port} cannot be used" in capsys.readouterr().err
