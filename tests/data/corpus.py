"""Files as they lie about: every kind of image that is used, and every kind that must be refused by name."""

import os
import socket
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SIDE = 48


class Case(NamedTuple):
    """A file to write, and what is said of it: None if it is used."""

    name: str
    write: Callable[[Path], Any]
    problem: str | None = None


def picture(side: int = SIDE) -> Image.Image:
    """Smooth colours that no turning or mirroring leaves as they are."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def colours(path: Path) -> np.ndarray:
    """The colours that an image shows, (H, W, 3) in [0, 255]: first frame, as stored, opacity left out."""
    with Image.open(path) as image:
        image.seek(0)
        if image.mode == "I;16":
            return np.repeat(np.asarray(image)[..., None] / 257, 3, axis=2)
        if image.mode in ("LA", "RGBA"):
            image = image.copy()
            image.putalpha(255)
        return np.asarray(image.convert("RGB")).astype(float)


def saved(mode: str = "RGB", **how: Any) -> Callable[[Path], None]:
    return lambda path: picture().convert(mode).save(path, **how)


def encoded(format: str, mode: str = "RGB", **how: Any) -> bytes:
    buffer = BytesIO()
    picture().convert(mode).save(buffer, format, **how)
    return buffer.getvalue()


def raw(content: bytes) -> Callable[[Path], int]:
    return lambda path: path.write_bytes(content)


def png(pixels: np.ndarray, bits: int = 8, color: int = 2, claim: tuple[int, int] | None = None) -> bytes:
    """A PNG written by hand: bit depth and colour type as asked, or a header that claims another size."""
    height, width = claim or pixels.shape[:2]
    if bits < 8:
        places = pixels[..., None] >> np.arange(bits)[::-1] & 1
        rows = np.packbits(places.reshape(len(pixels), -1).astype(np.uint8), axis=1)
    else:
        rows = pixels.astype(f">u{bits // 8}").reshape(len(pixels), -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def turned(path: Path, orientation: int = 6, **how: Any) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    picture().save(path, exif=exif, **how)


def animated(path: Path, **how: Any) -> None:
    first = picture()
    first.save(path, save_all=True, append_images=[first.rotate(90), first.rotate(180)], **how)


def translucent(path: Path, **how: Any) -> None:
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, SIDE).astype(np.uint8), (SIDE, 1))))
    image.save(path, **how)


def jpeg_claiming(height: int, width: int) -> bytes:
    content = bytearray(encoded("JPEG"))
    frame = content.find(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def damaged_checksum(content: bytes) -> bytes:
    """A PNG whose pixel data has another checksum than it says: Pillow overlooks that, DALI does not."""
    body = bytearray(content)
    start = body.find(b"IDAT")
    body[start + 4 + int.from_bytes(body[start - 4 : start], "big")] ^= 1
    return bytes(body)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        here = os.getcwd()
        os.chdir(path.parent)  # an address has at most 107 bytes
        try:
            end.bind(path.name)
        finally:
            os.chdir(here)


def _cut(content: bytes, share: float) -> bytes:
    return content[: int(share * len(content))]


DEEP = 250 * np.asarray(picture().convert("RGBA")).astype(int)  # 16 bits, between the steps of 8
GREY = np.asarray(picture().convert("L"))
NOT_READ = "which is not supported"
INCOMPLETE = "is not a complete image"
OTHER_FORMAT = "in none of the formats JPEG, PNG"

USED = [
    Case("plain.jpg", saved(quality=95)),
    Case("progressive.jpg", saved(progressive=True)),
    Case("colours kept.jpg", saved(keep_rgb=True)),
    Case("plain.png", saved()),
    Case("upper case.PNG", saved()),
    Case("plain.webp", saved(lossless=True)),
    Case("lossy.webp", saved(quality=60)),
    Case("plain.bmp", saved()),
    Case("plain.ppm", saved()),
    Case("plain.tif", saved()),
    Case("packed.tiff", saved(compression="tiff_lzw")),
    Case("png renamed.jpg", raw(encoded("PNG"))),
    Case("jpeg renamed.png", raw(encoded("JPEG"))),
    Case("cmyk.jpg", saved("CMYK", quality=95)),
    Case("cmyk.tif", saved("CMYK")),
    Case("gray.jpg", saved("L")),
    Case("gray.png", saved("L")),
    Case("gray.bmp", saved("L")),
    Case("gray.ppm", saved("L")),
    Case("gray.tif", saved("L")),
    Case("gray, 1 bit.png", saved("1")),
    Case("gray, 2 bits.png", raw(png(GREY >> 6, bits=2, color=0))),
    Case("gray, 4 bits.png", raw(png(GREY >> 4, bits=4, color=0))),
    Case("gray, 16 bits.png", raw(png(DEEP[..., :1], bits=16, color=0))),
    Case("16 bits.png", raw(png(DEEP[..., :3], bits=16))),
    Case("16 bits and alpha.png", raw(png(DEEP, bits=16, color=6))),
    Case("gray and alpha.png", saved("LA")),
    Case("alpha.png", translucent),
    Case("alpha.webp", lambda path: translucent(path, lossless=True, exact=True)),
    Case("alpha.tif", translucent),
    Case("palette.png", saved("P")),
    Case("palette, one colour clear.png", saved("P", transparency=0)),
    Case("palette, 4 bits.png", lambda path: picture().quantize(12).save(path, bits=4)),
    Case("palette.bmp", saved("P")),
    Case("palette.tif", saved("P")),
    Case("to be turned.jpg", turned),
    Case("to be mirrored.jpg", lambda path: turned(path, 2)),
    Case("to be turned.png", turned),
    Case("to be turned.webp", lambda path: turned(path, lossless=True)),
    Case("several.jpg", lambda path: animated(path, format="MPO")),
    Case("animated.png", animated),
    Case("animated.webp", lambda path: animated(path, lossless=True)),
    Case("pages.tif", animated),
    Case("1x1.jpg", lambda path: picture(1).save(path)),
    Case("1x1.png", lambda path: picture(1).save(path)),
    Case("600x3.png", lambda path: picture().resize((600, 3)).save(path)),
    Case("more bytes after the end.jpg", raw(encoded("JPEG") + bytes(5000))),
    Case("two\nlines.jpg", saved()),
    Case("ümläut 象.jpg", saved()),
    Case(os.fsdecode(b"latin\xe9.jpg"), saved()),
    Case("link to outside.jpg", lambda path: path.symlink_to(_outside(path))),
]

REFUSED = [
    Case("empty.jpg", raw(b""), r"is empty \(0 bytes\)"),
    Case("empty.png", raw(b""), r"is empty \(0 bytes\)"),
    Case("page.jpg", raw(b"<!DOCTYPE html><html><body>404</body></html>"), INCOMPLETE),
    Case("zeros.jpg", raw(bytes(4096)), INCOMPLETE),
    *(
        Case(f"{format} cut at {share}.{format}", raw(_cut(encoded(format), share)), INCOMPLETE)
        for format in ("jpeg", "png", "webp", "bmp", "tiff")
        for share in (0.01, 0.3, 0.6, 0.9)
    ),
    Case("progressive, cut.jpg", raw(_cut(encoded("JPEG", progressive=True), 0.6)), INCOMPLETE),
    Case("gif renamed.jpg", raw(encoded("GIF")), OTHER_FORMAT),
    Case("animated gif renamed.jpg", lambda path: animated(path, format="GIF"), OTHER_FORMAT),
    Case("avif renamed.jpg", raw(encoded("AVIF")), OTHER_FORMAT),
    Case("jpeg 2000 renamed.jpg", raw(encoded("JPEG2000")), OTHER_FORMAT),
    Case("postscript.jpg", raw(encoded("EPS")), OTHER_FORMAT),
    Case("float.tif", lambda path: Image.fromarray(GREY.astype(np.float32)).save(path), NOT_READ),
    Case("32 bits.tif", saved("I"), NOT_READ),
    Case("gray, 16 bits.tif", lambda path: Image.fromarray(DEEP[..., 0].astype("<u2")).save(path), NOT_READ),
    Case("gray and alpha.tif", saved("LA"), NOT_READ),
    Case("lab.tif", saved("LAB"), NOT_READ),
    Case("1 bit.tif", saved("1"), NOT_READ),
    Case("to be turned.tif", lambda path: picture().save(path, tiffinfo={274: 6}), "orientation tag"),
    Case("of 100 steps.ppm", raw(b"P6\n4 4\n100\n" + bytes(48)), NOT_READ),
    Case("in words.ppm", raw(b"P3\n1 1\n255\n1 2 3\n"), NOT_READ),
    Case("20000x3.jpg", lambda path: picture().resize((20000, 3)).save(path), "20000x3 pixels: one side"),
    Case("3x20000.png", lambda path: picture().resize((3, 20000)).save(path), "3x20000 pixels: one side"),
    Case("bomb.png", raw(png(GREY, color=0, claim=(100_000, 100_000))), "claims to have more than"),
    Case("bomb.jpg", raw(jpeg_claiming(65_000, 65_000)), "claims to have more than"),
    Case("folder.jpg", Path.mkdir, "is a folder"),
    Case("pipe.jpg", os.mkfifo, "is a pipe"),
    Case("socket.jpg", bound_socket, "is a socket"),
    Case("device.jpg", lambda path: path.symlink_to("/dev/zero"), "is a device"),
    Case("round in circles.jpg", lambda path: path.symlink_to(path.name), "cannot be accessed"),
    Case("link to nothing.jpg", lambda path: path.symlink_to("gone.jpg"), "is a broken link"),
]

HIDDEN = [
    Case("checksum.png", raw(damaged_checksum(encoded("PNG"))), "cannot be decoded"),
    Case("bomb of 144 million.png", raw(png(GREY, color=0, claim=(12_000, 12_000))), "cannot be decoded"),
]
"""Damage that no look at a file's ends shows."""


def write(folder: Path, *cases: Case) -> list[Path]:
    """Write the cases' files; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / case.name for case in cases]
    for path, case in zip(paths, cases, strict=True):
        case.write(path)
    return paths


def _outside(path: Path) -> Path:
    outside = path.parent.parent / "outside.jpg"
    picture().save(outside)
    return outside
