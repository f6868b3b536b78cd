import fcntl
import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hcl.models import downloads
from hcl.models.downloads import DownloadError, RemoteFile, cache_folder, fetch

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests += 1
        if "slow" in self.path:
            time.sleep(0.5)
        if "elsewhere" in self.path:
            self.send_response(302)
            self.send_header("Location", self.server.elsewhere)
        else:
            self.send_response(404 if "missing" in self.path else 200)
        length = {"nolength": None, "odd": "many", "long": str(1 << 62)}
        for name, said in length.items():
            if name in self.path and said:
                self.send_header("Content-Length", said)
        if not any(name in self.path for name in length):
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100] if "cut" in self.path else CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    """A server on the loopback, to which plain http is allowed."""
    monkeypatch.setattr(downloads, "_SCHEMES", ("http",))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = 0
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("HCL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def remote(server: ThreadingHTTPServer, name: str, sha256: str | None) -> RemoteFile:
    return RemoteFile(f"http://127.0.0.1:{server.server_port}/{name}", sha256)


def test_downloads_once_and_verifies(server, cache):
    for _ in range(2):
        path = fetch(remote(server, "w.pth", SHA256))
        assert path == cache / "w.pth"
        assert path.read_bytes() == CONTENT
    assert server.requests == 1
    assert [p.name for p in cache.iterdir()] == ["w.pth"]


def test_a_download_with_another_checksum_is_not_kept(server, cache):
    with pytest.raises(DownloadError, match=f"has SHA-256 {SHA256}, not {'0' * 64}"):
        fetch(remote(server, "w.pth", "0" * 64))
    assert not list(cache.iterdir())


def test_a_cached_file_that_changed_is_refused(server, cache):
    path = fetch(remote(server, "w.pth", SHA256))
    path.write_bytes(b"tampered")
    with pytest.raises(DownloadError, match=r"w\.pth has SHA-256 .* delete it to download it again"):
        fetch(remote(server, "w.pth", SHA256))


def test_without_a_known_checksum_the_first_one_is_recorded_and_said(server, cache, caplog):
    path = fetch(remote(server, "w.pth", None))
    assert (cache / "w.pth.sha256").read_text() == f"{SHA256}  w.pth\n"
    assert "no trusted checksum of w.pth is known" in caplog.text
    assert SHA256 in caplog.text
    caplog.clear()
    assert fetch(remote(server, "w.pth", None)) == path
    assert not caplog.text
    path.write_bytes(b"tampered")
    with pytest.raises(DownloadError, match=f"not {SHA256}"):
        fetch(remote(server, "w.pth", None))


def test_a_download_cut_short_is_not_kept(server, cache):
    with pytest.raises(DownloadError, match="100 of 7000 bytes"):
        fetch(remote(server, "cut.pth", None))
    assert not list(cache.iterdir())


def test_without_a_way_there_the_error_says_which_file_to_put_where(server, cache):
    with pytest.raises(DownloadError) as refusal:
        fetch(remote(server, "missing.pth", SHA256))
    message = str(refusal.value)
    assert "/missing.pth (HTTP Error 404" in message
    assert f"put it at {cache / 'missing.pth'}" in message
    assert "--backbone.weights FILE" in message
    assert not list(cache.iterdir())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/w.pth", "file:///etc/hostname"])
def test_only_https_is_asked(cache, url):
    with pytest.raises(DownloadError, match="is not an https address"):
        fetch(RemoteFile(url))
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    "address", ["ftp://127.0.0.1/w.pth", "file:///etc/hostname", "https://127.0.0.1:9/w.pth", "data:,x"]
)
def test_a_redirection_to_another_kind_of_address_is_not_followed(server, cache, address):
    server.elsewhere = address
    with pytest.raises(DownloadError):
        fetch(remote(server, "elsewhere.pth", SHA256))
    assert server.requests == 1
    assert not list(cache.iterdir())


def test_a_redirection_through_another_kind_of_address_is_not_followed(server, cache, monkeypatch):
    """Not even for one step on the way: whoever stands there could send us anywhere."""
    server.elsewhere = f"http://127.0.0.1:{server.server_port}/w.pth"
    asked = []

    def only_first(url: str) -> None:
        asked.append(url)
        if len(asked) > 1:
            raise DownloadError(f"{url} is not an https address")

    monkeypatch.setattr(downloads, "_require_scheme", only_first)
    with pytest.raises(DownloadError, match="is not an https address"):
        fetch(remote(server, "elsewhere.pth", SHA256))
    assert asked[1:] == [server.elsewhere]
    assert server.requests == 1


def test_redirections_of_the_same_kind_are_followed(server, cache):
    server.elsewhere = f"http://127.0.0.1:{server.server_port}/w.pth"
    assert fetch(remote(server, "elsewhere.pth", SHA256)).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["nolength.pth", "odd.pth", "long.pth"])
@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_download_without_its_length_is_not_kept(server, cache, name, sha256):
    with pytest.raises(DownloadError, match=f"cannot download .*{name}"):
        fetch(remote(server, name, sha256))
    assert not list(cache.iterdir())


FETCH = """
import sys
from hcl.models import downloads
downloads._SCHEMES = ("http",)
path = downloads.fetch(downloads.RemoteFile(sys.argv[1], sys.argv[2] or None))
print(len(path.read_bytes()))
"""


@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_processes_at_once_fetch_a_file_once_and_find_it_whole(server, cache, sha256):
    address = remote(server, "slow.pth", None).url
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", FETCH, address, sha256]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert int(out) == len(CONTENT)
    assert server.requests == 1
    assert {path.name for path in cache.iterdir()} == {"slow.pth", *([] if sha256 else ["slow.pth.sha256"])}


def test_processes_at_once_that_get_a_wrong_file_keep_nothing(server, cache):
    address = remote(server, "slow.pth", None).url
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", FETCH, address, "0" * 64]
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        assert b"DownloadError" in process.communicate(timeout=60)[1]
        assert process.returncode == 1
    assert not list(cache.iterdir())


def test_a_lock_that_the_file_system_does_not_know_is_done_without(server, cache, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert fetch(remote(server, "w.pth", SHA256)).read_bytes() == CONTENT


def test_a_system_that_has_no_such_locks_is_done_without(server, cache):
    program = f"import sys; sys.modules['fcntl'] = None\n{FETCH}"
    command = [sys.executable, "-c", program, remote(server, "w.pth", None).url, SHA256]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    fetched = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (fetched.stdout, fetched.returncode) == (f"{len(CONTENT)}\n", 0), fetched.stderr


def test_a_sum_that_another_process_records_meanwhile_counts(server, cache, monkeypatch):
    path = fetch(remote(server, "w.pth", SHA256))
    record = path.with_name("w.pth.sha256")

    @contextmanager
    def locked(folder):
        record.write_text(f"{'0' * 64}  w.pth\n")
        yield

    monkeypatch.setattr(downloads, "_locked", locked)
    with pytest.raises(DownloadError, match=f"has SHA-256 {SHA256}, not {'0' * 64}"):
        fetch(remote(server, "w.pth", None))


def test_weights_may_be_read_by_whom_the_umask_lets(server, cache):
    before = os.umask(0o027)
    try:
        path = fetch(remote(server, "w.pth", None))
    finally:
        os.umask(before)
    assert {stat.filemode(file.stat().st_mode) for file in cache.iterdir()} == {"-rw-r-----"}
    assert path.read_bytes() == CONTENT


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HCL_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("HCL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "hcl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "hcl"
