"""Generated, labelled scenes in VOC layout: objects made of parts, in front of textured backgrounds.

They serve to try the project without a data set. Every object class is a list of parts (a car has windows, a
body and wheels), and every part has a look: a colour that varies from scene to scene, and a texture. As in
photographs, colour does not identify an object: a few colours are shared by many looks, of objects and
backgrounds, and every scene has its own lighting.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from hcl.data.textures import textures
from hcl.data.voc import palette


class Look(NamedTuple):
    """Mean colour, one of COLORS; texture; and the strength of the texture."""

    color: str
    texture: str
    strength: int


class Part(NamedTuple):
    """A shape in its object's unit square: ellipse in a box (x0, y0, x1, y1), or polygon (x, y, x, y, …)."""

    shape: str
    points: tuple[float, ...]
    look: str


COLORS = {
    "blue": (110, 150, 205),
    "green": (95, 150, 75),
    "brown": (165, 110, 75),
    "pale": (215, 200, 165),
    "red": (190, 65, 65),
    "grey": (130, 135, 145),
    "black": (55, 50, 60),
}
SPREAD = 30  # how far a colour varies from scene to scene, up or down
LOOKS = {
    "sky": Look("blue", "clouds", 25),
    "grass": Look("green", "streaks", 35),
    "water": Look("blue", "waves", 35),
    "brick": Look("brown", "bricks", 50),
    "sand": Look("pale", "grain", 30),
    "paint": Look("red", "clouds", 15),
    "glass": Look("grey", "slants", 40),
    "tyre": Look("black", "rings", 30),
    "plaster": Look("pale", "dots", 35),
    "roof": Look("brown", "zigzags", 45),
    "door": Look("green", "boards", 40),
    "hull": Look("red", "planks", 40),
    "sail": Look("pale", "bands", 30),
    "fur": Look("brown", "stripes", 45),
    "ear": Look("black", "crosses", 40),
    "stem": Look("green", "backslants", 40),
    "petal": Look("blue", "checks", 45),
    "pollen": Look("red", "lattice", 45),
}
OBJECTS: dict[str, tuple[Part, ...]] = {
    "car": (
        Part("polygon", (0.2, 0.5, 0.32, 0.12, 0.7, 0.12, 0.84, 0.5), "glass"),
        Part("polygon", (0.0, 0.45, 1.0, 0.45, 1.0, 0.8, 0.0, 0.8), "paint"),
        *(Part("ellipse", (x, 0.58, x + 0.34, 0.92), "tyre") for x in (0.08, 0.58)),
    ),
    "house": (
        Part("polygon", (0.1, 0.4, 0.9, 0.4, 0.9, 1.0, 0.1, 1.0), "plaster"),
        Part("polygon", (0.0, 0.42, 0.5, 0.0, 1.0, 0.42), "roof"),
        Part("polygon", (0.16, 0.52, 0.46, 0.52, 0.46, 0.82, 0.16, 0.82), "glass"),
        Part("polygon", (0.56, 0.52, 0.82, 0.52, 0.82, 1.0, 0.56, 1.0), "door"),
    ),
    "boat": (
        Part("polygon", (0.5, 0.0, 0.95, 0.66, 0.5, 0.66), "sail"),
        Part("polygon", (0.48, 0.08, 0.48, 0.66, 0.05, 0.66), "sail"),
        Part("polygon", (0.0, 0.7, 1.0, 0.7, 0.8, 1.0, 0.2, 1.0), "hull"),
    ),
    "cat": (
        *(Part("polygon", (x, 0.45, x + 0.04, 0.0, x + 0.4, 0.25), "ear") for x in (0.06, 0.5)),
        Part("ellipse", (0.05, 0.15, 0.95, 0.95), "fur"),
        Part("ellipse", (0.3, 0.52, 0.7, 0.88), "ear"),
    ),
    "flower": (
        Part("polygon", (0.42, 0.5, 0.58, 0.5, 0.58, 1.0, 0.42, 1.0), "stem"),
        Part("ellipse", (0.54, 0.72, 0.95, 0.92), "stem"),
        *(
            Part("ellipse", (x, y, x + 0.36, y + 0.36), "petal")
            for x, y in ((0.32, 0.0), (0.06, 0.14), (0.58, 0.14), (0.16, 0.4), (0.48, 0.4))
        ),
        Part("ellipse", (0.32, 0.22, 0.68, 0.56), "pollen"),
    ),
}
HOMES = {  # what may lie above and below an object
    "car": (("sky", "sand"), ("brick", "sand")),
    "house": (("sky", "grass"), ("sky", "sand")),
    "boat": (("sky", "water"),),
    "cat": (("brick", "sand"), ("brick", "grass")),
    "flower": (("sky", "grass"), ("brick", "grass")),
}
CLASS_NAMES = ("background", *OBJECTS)


def write_scenes(root: Path | str, train: int = 192, val: int = 64, size: int = 224, seed: int = 7) -> None:
    """Write `train` and `val` scenes of `size`² pixels to `root`, which appears complete or not at all.

    The same arguments give the same files. Several processes may call this at once: the first to finish wins.

    Raises:
        FileExistsError: `root` exists.
        ValueError: a count is below 1, or the size below 32.
    """
    root = Path(root)
    if min(train, val) < 1 or size < 32:
        raise ValueError(
            f"need at least 1 scene per split and 32 pixels a side, got train={train}, val={val}, size={size}"
        )
    if root.exists():
        raise FileExistsError(f"{root} already exists; delete it to write its scenes again")
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
    """Draw one scene: image (size, size, 3) uint8, and class ids (size, size) uint8."""
    canvas = Image.new("L", (size, size), 0)
    parts = ImageDraw.Draw(canvas)
    objects = rng.choice(list(OBJECTS), size=rng.integers(1, 3), replace=False)
    homes = HOMES[objects[0]]
    looks, classes = list(homes[rng.integers(len(homes))]), [0, 0]
    parts.rectangle((0, size * rng.uniform(0.4, 0.65), size, size), fill=1)
    for name in objects:
        extent = size * rng.uniform(0.45, 0.75)
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
    """Paint the parts, (size, size, 3): every look's colour in this scene, its texture, then the light."""
    size = len(ids)
    names = sorted(set(looks))
    number = np.array([names.index(name) for name in looks])[ids]
    chosen = [LOOKS[name] for name in names]
    variation = rng.uniform(-SPREAD, SPREAD, size=(len(names), 3))
    color = np.array([COLORS[look.color] for look in chosen]) + variation
    top, left = rng.integers(0, size, size=2)
    shown = {
        name: texture[top : top + size, left : left + size] for name, texture in textures(2 * size).items()
    }
    reliefs = np.stack([look.strength * shown[look.texture] for look in chosen])
    relief = np.take_along_axis(reliefs, number[None], axis=0)[0]
    return _lit(color.astype(np.float32)[number] + relief[..., None], rng)


def _lit(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light pixels (size, size, 3) with a drawn tint and strength, stronger towards one side; uint8."""
    size = len(pixels)
    tint = rng.uniform(-0.2, 0.2, size=3)
    down, right = rng.uniform(-0.3, 0.3, size=2)
    y, x = np.ogrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    light = rng.uniform(-0.9, 0.05) + down * y + right * x
    return np.clip(pixels * np.exp(light[..., None] + tint), 0, 255).astype(np.uint8)


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
