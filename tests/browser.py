"""What the browser tests look for on a page."""

import io
from typing import Any

import numpy as np
from PIL import Image


class Watched:
    """A page whose complaints and requests are noted.

    Args:
        browser: to open it in.
        width, height: of the window.
        scheme: of the colours, ``light`` or ``dark``.
    """

    def __init__(self, browser: Any, width: int, height: int = 800, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def foreign(self, home: str) -> list[str]:
        """Requests that left the page's home."""
        return [url for url in self.requests if not url.startswith((home, "data:"))]

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def screenshot(self, **how: Any) -> np.ndarray:
        """What the page looks like, (H, W, 3) uint8."""
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot(**how))).convert("RGB"))


def brightness(picture: np.ndarray) -> float:
    """Of the commonest colour of a picture, 0 to 255: that of its background."""
    colours, counts = _colours(picture)
    red_green_blue = colours[counts.argmax()] >> np.array([16, 8, 0]) & 255
    return float(red_green_blue.mean())


def is_blank(picture: np.ndarray) -> bool:
    """Whether hardly anything is drawn."""
    return len(_colours(picture)[0]) < 100


def _colours(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The colours of a picture, each as one number, and how often each occurs."""
    return np.unique(picture.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1]), return_counts=True)
