"""Photographs that a browser uploads: untrusted bytes."""

import io

from PIL import Image

from hcl.data.images import BadImageError, opened_stream
from hcl.data.photographs import upright

CONTENT_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff"})


class RefusedError(Exception):
    """A request that cannot be served, with the HTTP status for it; the message is shown to the visitor."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def require_image_type(content_type: str) -> None:
    """Raise a RefusedError unless the content type is that of a supported image format."""
    kind = content_type.split(";")[0].strip().lower()
    if kind not in CONTENT_TYPES:
        kinds = ", ".join(sorted(name.removeprefix("image/") for name in CONTENT_TYPES))
        raise RefusedError(
            415, f"That is not a photograph ({kind[:60] or 'unknown type'}): choose a {kinds}."
        )


def read_upload(content: bytes, most_pixels: int) -> Image.Image:
    """Decode an uploaded photograph, upright and in RGB.

    Raises:
        RefusedError: 413 if it has more pixels than allowed, which is checked before they are decoded; 422 if
            the bytes are not a complete image of a supported format.
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
