"""Generated, labelled scenes in VOC layout: objects made of parts, before textured backgrounds.

For trying the project where no data set is at hand. Every object class is a list of parts (a car has a body,
windows and wheels), every part has its own colour and texture, and no part's look occurs in a background: so
objects stand out, and tokens gather by part.
"""

import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from hcl.data.voc import palette


class Look(NamedTuple):
    """Mean colour, how much it varies from object to object, texture, and the strength of the texture."""

    color: tuple[int, int, int]
    spread: int
    texture: str
    strength: int


class Part(NamedTuple):
    """A shape in its object's unit square: ellipse in a box (x0, y0, x1, y1), or polygon (x, y, x, y, …)."""

    shape: str
    points: tuple[float, ...]
    look: str


LOOKS = {
    "sky": Look((150, 190, 230), 20, "clouds", 22),
    "grass": Look((90, 140, 60), 18, "grain", 40),
    "water": Look((60, 110, 140), 18, "waves", 26),
    "brick": Look((165, 100, 80), 16, "bricks", 45),
    "sand": Look((210, 190, 145), 14, "grain", 18),
    "paint": Look((190, 30, 40), 40, "clouds", 8),
    "glass": Look((35, 50, 75), 12, "stripes", 30),
    "tyre": Look((20, 20, 22), 6, "grain", 8),
    "rim": Look((205, 205, 210), 12, "checks", 30),
    "plaster": Look((235, 225, 205), 14, "dots", 14),
    "roof": Look((90, 35, 40), 16, "checks", 35),
    "door": Look((95, 60, 20), 14, "stripes", 22),
    "hull": Look((25, 45, 120), 25, "planks", 25),
    "sail": Look((250, 245, 235), 8, "planks", 14),
    "mast": Look((120, 80, 40), 10, "clouds", 10),
    "fur": Look((215, 130, 40), 22, "stripes", 45),
    "ear": Look((240, 165, 175), 14, "clouds", 10),
    "eye": Look((50, 235, 90), 14, "clouds", 6),
    "petal": Look((235, 60, 170), 25, "dots", 25),
    "pollen": Look((250, 220, 40), 10, "checks", 40),
    "stem": Look((15, 90, 40), 12, "planks", 18),
}
BACKGROUNDS = (("sky", "grass"), ("sky", "water"), ("brick", "sand"), ("brick", "grass"), ("sky", "sand"))
OBJECTS: dict[str, tuple[Part, ...]] = {
    "car": (
        Part("polygon", (0.22, 0.5, 0.34, 0.22, 0.68, 0.22, 0.82, 0.5), "glass"),
        Part("polygon", (0.0, 0.48, 1.0, 0.48, 1.0, 0.78, 0.0, 0.78), "paint"),
        *(Part("ellipse", (x, 0.62, x + 0.28, 0.9), "tyre") for x in (0.1, 0.62)),
        *(Part("ellipse", (x, 0.7, x + 0.12, 0.82), "rim") for x in (0.18, 0.7)),
    ),
    "house": (
        Part("polygon", (0.1, 0.4, 0.9, 0.4, 0.9, 1.0, 0.1, 1.0), "plaster"),
        Part("polygon", (0.0, 0.42, 0.5, 0.0, 1.0, 0.42), "roof"),
        Part("polygon", (0.18, 0.55, 0.44, 0.55, 0.44, 0.8, 0.18, 0.8), "glass"),
        Part("polygon", (0.56, 0.55, 0.8, 0.55, 0.8, 1.0, 0.56, 1.0), "door"),
    ),
    "boat": (
        Part("polygon", (0.46, 0.0, 0.52, 0.0, 0.52, 0.72, 0.46, 0.72), "mast"),
        Part("polygon", (0.55, 0.05, 0.95, 0.64, 0.55, 0.64), "sail"),
        Part("polygon", (0.43, 0.12, 0.43, 0.64, 0.08, 0.64), "sail"),
        Part("polygon", (0.0, 0.7, 1.0, 0.7, 0.8, 1.0, 0.2, 1.0), "hull"),
    ),
    "cat": (
        *(Part("polygon", (x, 0.4, x + 0.04, 0.0, x + 0.32, 0.25), "ear") for x in (0.08, 0.5)),
        Part("ellipse", (0.05, 0.15, 0.95, 0.95), "fur"),
        *(Part("ellipse", (x, 0.36, x + 0.2, 0.56), "eye") for x in (0.2, 0.6)),
        Part("polygon", (0.42, 0.64, 0.58, 0.64, 0.5, 0.78), "ear"),
    ),
    "flower": (
        Part("polygon", (0.46, 0.5, 0.54, 0.5, 0.54, 1.0, 0.46, 1.0), "stem"),
        Part("ellipse", (0.52, 0.72, 0.86, 0.86), "stem"),
        *(
            Part("ellipse", (x, y, x + 0.34, y + 0.34), "petal")
            for x, y in ((0.33, 0.0), (0.1, 0.16), (0.56, 0.16))
        ),
        *(Part("ellipse", (x, 0.38, x + 0.34, 0.72), "petal") for x in (0.18, 0.48)),
        Part("ellipse", (0.36, 0.24, 0.64, 0.52), "pollen"),
    ),
}
CLASS_NAMES = ("background", *OBJECTS)
_TEXTURES = ("clouds", "grain", "waves", "bricks", "stripes", "planks", "checks", "dots")


def write_scenes(root: Path | str, train: int = 192, val: int = 64, size: int = 224, seed: int = 7) -> None:
    """Write `train` and `val` scenes of `size`² pixels to `root`, which appears whole or not at all.

    The same arguments give the same files. Several processes may call this at once: the first to finish wins.
    Raises FileExistsError where `root` exists, ValueError for a count below 1 or a size below 32.
    """
    root = Path(root)
    if min(train, val) < 1 or size < 32:
        raise ValueError(
            f"need at least 1 scene a split and 32 pixels, got train={train}, val={val}, size={size}"
        )
    if root.exists():
        raise FileExistsError(f"{root} exists already; delete it to have its scenes written anew")
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        draft.chmod(0o755)
        for number, (split, count) in enumerate((("train", train), ("val", val))):
            _write_split(draft, split, count, size, [seed, number])
        _publish(draft, root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def draw_scene(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image (size, size, 3) uint8, and class ids (size, size) uint8."""
    canvas = Image.new("L", (size, size), 0)
    parts = ImageDraw.Draw(canvas)
    above, below = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    looks, classes = [above, below], [0, 0]
    parts.rectangle((0, size * rng.uniform(0.4, 0.65), size, size), fill=1)
    for name in rng.choice(list(OBJECTS), size=rng.integers(1, 3), replace=False):
        extent = size * rng.uniform(0.4, 0.65)
        left, top = rng.uniform(0, size - extent, size=2)
        for part in OBJECTS[name]:
            _draw_part(parts, part, left, top, extent, fill=len(looks))
            looks.append(part.look)
            classes.append(CLASS_NAMES.index(name))
    ids = np.asarray(canvas)
    return _paint(ids, looks, rng), np.array(classes, np.uint8)[ids]


def _draw_part(
    draw: ImageDraw.ImageDraw, part: Part, left: float, top: float, extent: float, fill: int
) -> None:
    points = [(left if i % 2 == 0 else top) + extent * p for i, p in enumerate(part.points)]
    (draw.ellipse if part.shape == "ellipse" else draw.polygon)(points, fill=fill)


def _paint(ids: np.ndarray, looks: list[str], rng: np.random.Generator) -> np.ndarray:
    """Colours of the parts: one colour for every look of this scene, and the look's texture."""
    size = len(ids)
    shift = rng.integers(0, size, size=2)
    textures = np.roll(_textures(size), shift, axis=(1, 2))
    base, strength, texture = {}, {}, {}
    for name in sorted(set(looks)):
        look = LOOKS[name]
        base[name] = np.array(look.color) + rng.uniform(-look.spread, look.spread, size=3)
        strength[name], texture[name] = look.strength, _TEXTURES.index(look.texture)
    color = np.array([base[name] for name in looks], np.float32)[ids]
    y, x = np.ogrid[:size, :size]
    pattern = textures[np.array([texture[name] for name in looks])[ids], y, x]
    relief = np.array([strength[name] for name in looks], np.float32)[ids] * pattern
    light = rng.uniform(0.85, 1.1)
    return np.clip(light * (color + relief[..., None]), 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _textures(size: int) -> np.ndarray:
    """(textures, size, size) float32 in [-1, 1], in the order of `_TEXTURES`; the same for every scene."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    coarse = Image.fromarray(np.tile(rng.uniform(-1, 1, (6, 6)).astype(np.float32), (3, 3)))
    clouds = np.asarray(coarse.resize((3 * size, 3 * size), Image.Resampling.BICUBIC))[
        size : 2 * size, size : 2 * size
    ]
    joints = (y % 12 < 2) | ((x + 12 * (y // 12 % 2)) % 24 < 2)
    textures = (
        clouds,
        rng.uniform(-1, 1, (size, size)),
        np.sin(0.7 * y + 2 * np.sin(0.15 * x)),
        np.where(joints, -1, 0.3),
        np.sign(np.sin(0.8 * x)),
        np.sign(np.sin(0.6 * y)),
        np.sign(np.sin(0.7 * x) * np.sin(0.7 * y)),
        np.where((x % 8 - 4) ** 2 + (y % 8 - 4) ** 2 < 6, 1, -0.5),
    )
    return np.clip(np.stack(textures), -1, 1).astype(np.float32)


def _write_split(root: Path, split: str, count: int, size: int, seed: list[int]) -> None:
    folders = [root / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    names = [f"{split}_{index:05d}" for index in range(count)]
    for index, name in enumerate(names):
        pixels, classes = draw_scene(size, np.random.default_rng([*seed, index]))
        mask = Image.fromarray(classes)
        mask.putpalette(palette())
        Image.fromarray(pixels).save(folders[0] / f"{name}.jpg", quality=95)
        mask.save(folders[1] / f"{name}.png")
    (folders[2] / f"{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def _publish(draft: Path, root: Path) -> None:
    try:
        os.rename(draft, root)
    except OSError:
        if not root.is_dir():
            raise
