"""The textures of generated scenes; their periods are a few pixels, whatever the scene's size."""

from functools import lru_cache

import numpy as np
from PIL import Image


@lru_cache(maxsize=4)
def textures(size: int) -> dict[str, np.ndarray]:
    """Every texture by name, (size, size) float32 in [-1, 1]; always the same."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size].astype(np.float32)

    def noise(cell_y: int, cell_x: int) -> np.ndarray:
        cells = rng.uniform(-1, 1, (-(-size // cell_y), -(-size // cell_x))).astype(np.float32)
        return np.asarray(Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC))

    radius = np.hypot(x % 16 - 8, y % 16 - 8)
    found = {
        "clouds": noise(40, 40),
        "streaks": noise(9, 2),
        "waves": np.sin(0.7 * y + 2 * np.sin(0.15 * x)),
        "bricks": np.where((y % 12 < 2) | ((x + 12 * (y // 12 % 2)) % 24 < 2), -1, 0.3),
        "grain": noise(2, 2),
        "slants": np.sign(np.sin(0.6 * (x + y))),
        "rings": np.sin(radius * 1.1),
        "dots": np.where((x % 8 - 4) ** 2 + (y % 8 - 4) ** 2 < 6, 1, -0.5),
        "zigzags": np.sign(np.sin(0.7 * (y + abs(x % 12 - 6)))),
        "boards": np.sign(np.sin(0.35 * x)),
        "bands": np.sign(np.sin(0.35 * y)),
        "planks": np.sign(np.sin(0.8 * y)),
        "crosses": np.where((abs(x % 12 - 6) < 2) ^ (abs(y % 12 - 6) < 2), 1, -0.5),
        "stripes": np.sign(np.sin(0.8 * x)),
        "backslants": np.sign(np.sin(0.6 * (x - y))),
        "checks": np.sign(np.sin(0.7 * x) * np.sin(0.7 * y)),
        "lattice": np.where(((x + y) % 14 < 3) | ((x - y) % 14 < 3), 1, -0.4),
    }
    return {name: np.clip(texture, -1, 1).astype(np.float32) for name, texture in found.items()}
