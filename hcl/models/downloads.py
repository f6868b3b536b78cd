"""Backbone weights from their authors' addresses, verified and kept in a cache folder.

Every file is checked against a SHA-256 whenever it is used. If a trustworthy checksum is known, it is listed
below, so a file that was tampered with is never used. For three of DINO's files and two of DINOv2's none is
known: the first download relies on the https server, its checksum is written beside it (``<file>.sha256``),
and later uses are checked against that. In either case `hcl.models.weights` reads the file without executing
anything, and checks every key and shape. Processes that need the same file at once wait for the first one.
"""

import hashlib
import logging
import os
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from tqdm import tqdm

from hcl.files import written_whole

log = logging.getLogger(__name__)

_SCHEMES = ("https",)
_TIMEOUT = 30  # seconds without an answer
_CHUNK = 1 << 20  # bytes


class DownloadError(OSError):
    """A file could not be obtained, or is not the file that its authors published."""


@dataclass(frozen=True)
class RemoteFile:
    """Where a file comes from, and its SHA-256 if a trustworthy one is known."""

    url: str
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The file's name in the cache."""
        return self.url.rsplit("/", 1)[-1]


_HOST = "https://dl.fbaipublicfiles.com"

BACKBONE_FILES: Mapping[str, RemoteFile] = MappingProxyType(
    {
        "dino_vits16": RemoteFile(f"{_HOST}/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth"),
        "dino_vits8": RemoteFile(f"{_HOST}/dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth"),
        "dino_vitb16": RemoteFile(
            f"{_HOST}/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
            "bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e",
        ),
        "dino_vitb8": RemoteFile(f"{_HOST}/dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth"),
        "dinov2_vits14": RemoteFile(
            f"{_HOST}/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
            "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        ),
        "dinov2_vits14_reg": RemoteFile(
            f"{_HOST}/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
            "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
        ),
        "dinov2_vitb14": RemoteFile(
            f"{_HOST}/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
            "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        ),
        "dinov2_vitb14_reg": RemoteFile(
            f"{_HOST}/dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth",
            "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
        ),
        "dinov2_vitl14": RemoteFile(f"{_HOST}/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"),
        "dinov2_vitl14_reg": RemoteFile(f"{_HOST}/dinov2/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth"),
    }
)


def cache_folder() -> Path:
    """``$HCL_CACHE``, else ``$XDG_CACHE_HOME/hcl``, else ``~/.cache/hcl``."""
    if own := os.environ.get("HCL_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hcl"


def fetch(remote: RemoteFile) -> Path:
    """Return the verified local copy of a file, downloaded on first use.

    Raises:
        DownloadError: the file cannot be downloaded, is incomplete, or has the wrong checksum.
    """
    path = cache_folder() / remote.name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            if not path.is_file():
                _download(remote, path)
    _verify(remote, path)
    return path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Admit one process at a time; the system releases the lock of a process that dies.

    On systems and file systems without such locks, a file may be fetched twice but is still complete.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _download(remote: RemoteFile, path: Path) -> None:
    """Download a file and verify it before it gets its name, so that the cache never holds half a file."""
    try:
        with written_whole(path) as file:
            received = _receive(remote, file)
            if remote.sha256 not in (None, received):
                raise DownloadError(f"the received file has SHA-256 {received}, not {remote.sha256}")
    except (OSError, ValueError, HTTPException) as error:
        raise DownloadError(
            f"cannot download {remote.url} ({error}): get the file in another way and put it at {path}, or "
            "give one with --backbone.weights FILE"
        ) from error


def _receive(remote: RemoteFile, file: BinaryIO) -> str:
    """Copy the file from its server; return the SHA-256 of the received bytes."""
    _require_scheme(remote.url)
    digest = hashlib.sha256()
    opener = urllib.request.build_opener(_SafeRedirects)
    with opener.open(remote.url, timeout=_TIMEOUT) as response:
        size = int(response.headers.get("Content-Length") or 0)
        if size < 1:
            raise DownloadError("the server does not report the size of the file")
        with tqdm(total=size, unit="B", unit_scale=True, desc=remote.name, disable=None) as progress:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                progress.update(len(chunk))
    if file.tell() != size:
        raise DownloadError(f"only {file.tell()} of {size} bytes were received")
    return digest.hexdigest()


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects to an address that is not https, even if it leads on to one that is."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        _require_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_scheme(url: str) -> None:
    if url.split("://", 1)[0].lower() not in _SCHEMES:
        raise DownloadError(f"{url} is not an https address")


def _verify(remote: RemoteFile, path: Path) -> None:
    """Check a cached file against the known checksum, or against the one recorded at its first use."""
    with path.open("rb") as content:
        actual = hashlib.file_digest(content, "sha256").hexdigest()
    expected = remote.sha256 or _recorded(path, actual)
    if actual != expected:
        raise DownloadError(f"{path} has SHA-256 {actual}, not {expected}: delete it to download it again")


def _recorded(path: Path, actual: str) -> str:
    """The checksum that a file had at its first use, which may be now."""
    record = path.with_name(f"{path.name}.sha256")
    if not record.is_file():
        with _locked(path.parent):
            if not record.is_file():
                _record(path, actual, record)
    return record.read_text().partition(" ")[0]


def _record(path: Path, actual: str, record: Path) -> None:
    with written_whole(record) as file:
        file.write(f"{actual}  {path.name}\n".encode())
    log.warning(
        "no trusted checksum of %s is known: its SHA-256 %s was recorded in %s, and later uses are "
        "checked against it",
        path.name,
        actual,
        record,
    )
