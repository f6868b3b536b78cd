"""The training views as the published program makes them: PIL and numpy, image by image, view by view.

They are made from the same draws as this project's, so that both do the same work. Nothing here is meant to
be fast.
"""

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from hcl.data.samples import Dataset
from pipelines.draws import ViewsConfig, draw_views
from pipelines.normalise import MEAN, STD


class PublishedViews(TorchDataset[tuple[Tensor, Tensor]]):
    """Two views (3, size, size) of every image (HCL, section 6), for a DataLoader with a worker per core."""

    def __init__(self, dataset: Dataset, config: ViewsConfig, *, seed: int) -> None:
        self.dataset, self.config, self.seed = dataset, config, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the views of one image, drawn for epoch 0."""
        draws = draw_views(self.config, self.seed, 0, index)
        with Image.open(self.dataset.samples[index].image) as file:
            image = _crop(file.convert("RGB"), draws.crop, 2 * self.config.size)
        first, second = (_view(image, jitter, self.config.size) for jitter in draws.photometric)
        return first, second


def _crop(image: Image.Image, crop: np.ndarray, size: int) -> Image.Image:
    shorter = min(image.size)
    side = max(int(shorter * crop[0] + 0.5), 1)
    room = np.array([image.height, image.width]) - side
    top, left = np.minimum((room + 1) * crop[1:], room).astype(int).tolist()
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)


def _view(image: Image.Image, jitter: np.ndarray, size: int) -> Tensor:
    brightness, contrast, saturation, hue, sigma, _ = (float(value) for value in jitter)
    for enhance, factor in (
        (ImageEnhance.Brightness, brightness),
        (ImageEnhance.Contrast, contrast),
        (ImageEnhance.Color, saturation),
    ):
        if factor != 1:
            image = enhance(image).enhance(factor)
    if hue:
        image = _turned(image, hue)
    if sigma:
        image = image.filter(ImageFilter.GaussianBlur(sigma))
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    normalised = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(normalised).permute(2, 0, 1).contiguous()


def _turned(image: Image.Image, degrees: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turn = np.uint8(round(degrees / 360 * 255) % 256)
    turned = Image.fromarray(np.asarray(hue) + turn)
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
