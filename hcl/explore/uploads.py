"""Photographs that a browser sends: bytes that nobody has looked at."""

import io

from PIL import Image

from hcl.data.images import BadImageError, opened_stream
from hcl.data.photographs import upright

CONTENT_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff"})


class RefusedError(Exception):
    """A request that cannot be served, with the HTTP status that says why; the message is for the visitor."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def require_image_type(content_type: str) -> None:
    """Refuse what does not say of itself that it is an image of a kind that is read here."""
    kind = content_type.split(";")[0].strip().lower()
    if kind not in CONTENT_TYPES:
        kinds = ", ".join(sorted(name.removeprefix("image/") for name in CONTENT_TYPES))
        raise RefusedError(415, f"That is no photograph ({kind[:60] or 'of no kind'}): choose a {kinds}.")


def read_upload(content: bytes, most_pixels: int) -> Image.Image:
    """The photograph in some bytes, upright and in RGB.

    Raises:
        RefusedError: 413 where it has more pixels than allowed, known before they are decoded; 422 where the
            bytes are no whole image of a kind that is read here.
    """
    try:
        with opened_stream(io.BytesIO(content)) as image:
            width, height = image.size
            picture = upright(image) if width * height <= most_pixels else None
    except BadImageError as error:
        raise RefusedError(422, f"The photograph cannot be read: it {error}.") from error
    if picture is None:
        raise RefusedError(
            413,
            f"The photograph has {width}x{height} pixels, more than {most_pixels / 1e6:g} million: make it "
            "smaller first.",
        )
    return picture
