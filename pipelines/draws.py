"""What is random about a view, drawn apart from the pixels.

Every draw is a pure function of (seed, epoch, index): a Philox generator whose key is the seed and whose
counter is the epoch and the index. A view therefore depends neither on the rank nor on the batch it is in,
nor on what was drawn before, and an epoch's draws can be had again for the bank pass (HCL, section 6).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

VIEWS, PROBE = range(2)  # generators of different purposes never meet


@dataclass(frozen=True)
class ViewsConfig:
    """The two training views of HCL, section 6.

    Args:
        size: pixels a side of a view. The crop is first brought to twice this size and jittered there.
        crop_scale: range of the crop's side, as a share of the image's shorter side.
        brightness: a factor is drawn from 1 ± this.
        contrast: likewise.
        saturation: likewise.
        hue: a turn is drawn from ± this, as a share of the colour circle.
        color_probability: how often each of those four is applied.
        blur_sigma: range of the Gaussian blur's standard deviation, in pixels of the doubled size.
        blur_probability: how often it is applied.
        grayscale_probability: how often a view loses its colours (never, in the published system).
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
                f"at most {(2 * self.size - 2) / 3:.1f}"
            )
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue must lie in [0, 0.5], got {self.hue}")
        _check_shares(self, "brightness", "contrast", "saturation")
        _check_shares(self, "color_probability", "blur_probability", "grayscale_probability")


class ViewDraws(NamedTuple):
    """One image's draws, float32.

    crop (3,): side as a share of the shorter side; top and left as shares of the room that the crop leaves.
    photometric (2, 6), one row a view: brightness, contrast and saturation factors, hue in degrees, blur
    sigma in pixels, 1 for grayscale. What is not applied has its identity: factor 1, else 0.
    """

    crop: np.ndarray
    photometric: np.ndarray


@dataclass(frozen=True)
class ProbeConfig:
    """The linear classifier's training views (HCL, section 7).

    Args:
        scale: range of the zoom.
        rotation: the angle is drawn from ± this, in degrees.
        blur_probability: how often the image is blurred, by 5x5 pixels.
        flip_probability: how often image and label are mirrored left to right.
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
    """One image's draws: zoom, angle in degrees, crop's place as shares of its room, mirrored, blurred."""

    scale: float
    angle: float
    top: float
    left: float
    flip: bool
    blur: bool


def draw_views(config: ViewsConfig, seed: int, epoch: int, index: int) -> ViewDraws:
    """The draws of image `index` in `epoch`: crop, and photometric changes of both views."""
    uniform = _generator(VIEWS, seed, epoch, index).random
    crop = uniform(3)
    low, high = config.crop_scale
    crop[0] = low + (high - low) * crop[0]
    probability, lowest, highest, identity = _photometric_ranges(config)
    applied = uniform((2, 6)) < probability
    values = lowest + (highest - lowest) * uniform((2, 6))
    return ViewDraws(crop.astype(np.float32), np.where(applied, values, identity).astype(np.float32))


def draw_probe(config: ProbeConfig, seed: int, epoch: int, index: int) -> ProbeDraws:
    """The draws of image `index` in `epoch` for the linear classifier's training."""
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
    """(4, 6): probability, low, high and identity of the columns of `ViewDraws.photometric`."""
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
