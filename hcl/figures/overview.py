"""A run at a glance: what the model sees in a few images, and its loss curves."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from hcl.engine.log_reader import read_records
from hcl.figures.colours import class_colours, cluster_colours
from hcl.figures.curves import LOSSES, loss_figure, of_losses
from pipelines.normalise import MEAN, STD

TITLES = ("image", "label", "foreground", "components")


def draw_overview(path: Path, images: Tensor, labels: Tensor, foreground: Tensor, clusters: Tensor) -> None:
    """Draw one row per image: image, label, foreground map, map of components.

    Args:
        path: path of the PNG file.
        images: (B, 3, H, W) float, ImageNet-normalised.
        labels: (B, H, W) class ids, 255 where unlabelled.
        foreground: (B, h, w) bool.
        clusters: (B, h, w) cluster ids, at any resolution.
    """
    rows = len(images)
    figure = Figure(figsize=(2.4 * len(TITLES), 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, len(TITLES), squeeze=False)
    panels = (
        _pixels(images),
        class_colours(_numpy(labels)),
        _numpy(foreground),
        cluster_colours(_numpy(clusters)),
    )
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
        log: file of JSON lines; those with ``step``, ``loss``, ``loss_fg``, ``loss_bg`` and
            ``loss_prediction`` are drawn, others (such as those of the clustering) are not.
        path: path of the PNG file.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: no line of the log has all of these.
    """
    records = of_losses(read_records(log))
    if not records:
        raise ValueError(f"{log} holds no losses: no line has step, {', '.join(LOSSES)}")
    _save(loss_figure(records), path)


def _pixels(images: Tensor) -> np.ndarray:
    """Convert normalised images (B, 3, H, W) to (B, H, W, 3) in [0, 1]."""
    return (_numpy(images.movedim(1, -1)) * STD + MEAN).clip(0, 1)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _save(figure: Figure, path: Path) -> None:
    # A figure made without pyplot is drawn by Agg: it needs no display and leaves no global state.
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
