"""A run at a glance: what the model sees in a few images, and how its losses went."""

import json
from pathlib import Path

import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from hcl.data.voc import palette
from pipelines.normalise import MEAN, STD

TITLES = ("image", "label", "foreground", "clusters")
LOSSES = ("loss", "loss_fg", "loss_bg", "loss_prediction")
GOLDEN_TURN = (5**0.5 - 1) / 2
"""Steps of this share of the colour circle keep the colours of successive ids apart."""


def draw_overview(path: Path, images: Tensor, labels: Tensor, foreground: Tensor, clusters: Tensor) -> None:
    """Draw one row an image: image, label, foreground map, cluster map.

    Args:
        path: of the PNG file.
        images: (B, 3, H, W) float, ImageNet-normalised.
        labels: (B, H, W) class ids, 255 where unlabelled.
        foreground: (B, h, w) bool.
        clusters: (B, h, w) cluster ids.
    """
    rows = len(images)
    figure = Figure(figsize=(2.4 * len(TITLES), 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, len(TITLES), squeeze=False)
    panels = (_pixels(images), _class_colors(labels), _numpy(foreground), _cluster_colors(clusters))
    for row, panel in enumerate(zip(*panels, strict=True)):
        for axes, title, picture in zip(grid[row], TITLES, panel, strict=True):
            axes.imshow(picture, cmap="gray", interpolation="nearest", vmin=0, vmax=1)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title)
    _save(figure, path)


def draw_losses(log: Path, path: Path) -> None:
    """Draw the loss curves of a run.

    Args:
        log: JSON lines; those with ``step``, ``loss``, ``loss_fg``, ``loss_bg`` and ``loss_prediction`` are
            drawn, others (of the clustering, say) are not.
        path: of the PNG file.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: no line of the log holds the losses.
    """
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    records = [record for record in records if record.keys() >= {"step", *LOSSES}]
    if not records:
        raise ValueError(f"{log} holds no losses: no line has step, {', '.join(LOSSES)}")
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for name in LOSSES:
        axes.plot([record["step"] for record in records], [record[name] for record in records], label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend()
    _save(figure, path)


def _pixels(images: Tensor) -> np.ndarray:
    """Normalised (B, 3, H, W) to (B, H, W, 3) in [0, 1]."""
    return (_numpy(images.movedim(1, -1)) * STD + MEAN).clip(0, 1)


def _class_colors(labels: Tensor) -> np.ndarray:
    """Class ids (B, H, W) to the colours (B, H, W, 3) of VOC's masks, in [0, 1]."""
    return np.array(palette()).reshape(256, 3)[_numpy(labels)] / 255


def _cluster_colors(clusters: Tensor) -> np.ndarray:
    """Cluster ids (B, h, w) to colours (B, h, w, 3) in [0, 1], the same for the same id in every image."""
    ids = _numpy(clusters)
    hues = ids * GOLDEN_TURN % 1
    saturations = 0.5 + 0.4 * (ids % 2)
    return hsv_to_rgb(np.stack([hues, saturations, 0.7 + 0.3 * (ids // 2 % 2)], axis=-1))


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _save(figure: Figure, path: Path) -> None:
    # A figure made without pyplot is drawn by Agg: it needs no display and leaves no global state.
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
