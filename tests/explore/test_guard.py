"""Only this computer's own page is answered."""

import pytest

from tests.explore.conftest import PAGE


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST:8765"])
def test_this_computer_is_answered(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example:8765",
            "127.0.0.1.evil.example:8765",
            "127.0.0.1:80",
            "127.0.0.1",
            "localhost:8766",
            "",
        ),
        *("127.0.0.1:8765@evil.example", "user@127.0.0.1:8765", "127.0.0.1:8765/x", "[::1", "127.0.0.1:x"),
    ],
)
@pytest.mark.parametrize("address", ["/", "/api/page", "/nowhere"])
def test_another_name_is_refused(client, host, address):
    answer = client.get(address, headers={"Host": host})
    assert answer.status_code == 403
    assert "127.0.0.1" in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1:8765"},
        {"Origin": "http://127.0.0.1:8766"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_is_refused(client, scene, headers):
    answer = client.post("/api/photographs", content=scene, headers={"Content-Type": "image/png", **headers})
    assert answer.status_code == 403
    assert client.get("/api/page", headers=headers).status_code == 403


def test_the_page_itself_may_ask(client, scene):
    headers = {"Origin": PAGE, "Sec-Fetch-Site": "same-origin", "Content-Type": "image/png"}
    assert client.post("/api/photographs", content=scene, headers=headers).status_code == 201


@pytest.mark.parametrize("address", ["/", "/explore.js", "/api/page", "/nowhere"])
def test_every_answer_allows_only_what_is_here(client, address):
    headers = client.get(address).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
