"""The random parameters of a view, drawn independently of its pixels.

Every draw is a pure function of (seed, epoch, index): it comes from a Philox generator whose key is the seed
and the purpose of the draw, and whose counter is the epoch and the index. A view therefore does not depend on
its rank, its batch or earlier draws, and the bank pass can repeat an epoch's draws (HCL, section 6).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

VIEWS, PROBE = range(2)  # purposes, each with random numbers of its own


@dataclass(frozen=True)
class ViewsConfig:
    """The two training views of HCL, section 6.

    Args:
        size: side of a view in pixels. The crop is first resized to twice this size and jittered there.
        crop_scale: range of the crop's side, as a share of the image's shorter side.
        brightness: the brightness factor is drawn from 1 ± this.
        contrast: the contrast factor is drawn from 1 ± this.
        saturation: the saturation factor is drawn from 1 ± this.
        hue: the rotation of the hue is drawn from ± this, as a share of the colour circle.
        color_probability: probability with which each of these four changes is applied.
        blur_sigma: range of the Gaussian blur's standard deviation, in pixels of the doubled size.
        blur_probability: probability of the blur.
        grayscale_probability: probability that a view is made grey (0 in the published system).
    """

    size: int = 224
    crop_scale: tuple[float, float] = (0.8, 1.0)
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.1
    color_probability: float = 0.8
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_probability: float = 0.5
    grayscale_probability: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale must be a range within (0, 1], got {self.crop_scale}")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma must be a range above 0, got {self.blur_sigma}")
        if self.blur_probability > 0 and 3 * self.blur_sigma[1] > 2 * self.size - 2:
            raise ValueError(
                f"blur_sigma reaches {self.blur_sigma[1]}, too wide for views of {self.size} pixels: "
                f"choose at most {(2 * self.size - 2) / 3:.1f}"
            )
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue must lie in [0, 0.5], got {self.hue}")
        _check_shares(self, "brightness", "contrast", "saturation")
        _check_shares(self, "color_probability", "blur_probability", "grayscale_probability")


class ViewDraws(NamedTuple):
    """One image's draws, float32.

    crop (3,): side as a share of the shorter side; top and left as shares of the room that the crop leaves.
    photometric (2, 6), one row per view: brightness, contrast and saturation factors, hue in degrees, blur
    sigma in pixels, 1 for grayscale. A change that is not applied has its identity value: factor 1, else 0.
    """

    crop: np.ndarray
    photometric: np.ndarray


@dataclass(frozen=True)
class ProbeConfig:
    """The linear classifier's training views (HCL, section 7).

    Args:
        scale: range of the zoom factor.
        rotation: the angle is drawn from ± this, in degrees.
        blur_probability: probability that the image is blurred, with a window of 5x5 pixels.
        flip_probability: probability that image and label are mirrored left to right.
    """

    scale: tuple[float, float] = (0.75, 1.25)
    rotation: float = 10.0
    blur_probability: float = 0.5
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be a range above 0, got {self.scale}")
        _check_shares(self, "blur_probability", "flip_probability")


class ProbeDraws(NamedTuple):
    """One image's draws: zoom, angle in degrees, crop position as shares of its room, mirrored, blurred."""

    scale: float
    angle: float
    top: float
    left: float
    flip: bool
    blur: bool


def draw_views(config: ViewsConfig, seed: int, epoch: int, index: int) -> ViewDraws:
    """Return the draws of image `index` in `epoch`: its crop, and both views' photometric changes."""
    uniform = _generator(VIEWS, seed, epoch, index).random
    crop = uniform(3)
    low, high = config.crop_scale
    crop[0] = low + (high - low) * crop[0]
    probability, lowest, highest, identity = _photometric_ranges(config)
    applied = uniform((2, 6)) < probability
    values = lowest + (highest - lowest) * uniform((2, 6))
    return ViewDraws(crop.astype(np.float32), np.where(applied, values, identity).astype(np.float32))


def draw_probe(config: ProbeConfig, seed: int, epoch: int, index: int) -> ProbeDraws:
    """Return the draws of image `index` in `epoch` for the linear classifier's training."""
    scale, angle, top, left, flip, blur = _generator(PROBE, seed, epoch, index).random(6)
    low, high = config.scale
    return ProbeDraws(
        scale=low + (high - low) * scale,
        angle=config.rotation * (2 * angle - 1),
        top=top,
        left=left,
        flip=bool(flip < config.flip_probability),
        blur=bool(blur < config.blur_probability),
    )


def _check_shares(config: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {getattr(config, name)}")


def _generator(purpose: int, seed: int, epoch: int, index: int) -> np.random.Generator:
    # The lowest word of the counter is the one that advances while numbers are drawn.
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, epoch, index]))


def _photometric_ranges(config: ViewsConfig) -> np.ndarray:
    """Probability, low, high and identity of each column of `ViewDraws.photometric`. (4, 6)."""
    columns = [
        *(
            (config.color_probability, 1 - v, 1 + v, 1)
            for v in (config.brightness, config.contrast, config.saturation)
        ),
        (config.color_probability, -360 * config.hue, 360 * config.hue, 0),
        (config.blur_probability, *config.blur_sigma, 0),
        (config.grayscale_probability, 1, 1, 0),
    ]
    return np.array(columns).T
