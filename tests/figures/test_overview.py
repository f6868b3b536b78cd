"""The figures are drawn from what a run leaves, and say what is missing."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from hcl.figures.overview import draw_losses, draw_overview


def overview(path, *, clusters: torch.Tensor) -> np.ndarray:
    images = torch.zeros(2, 3, 32, 32)
    labels = torch.full((2, 32, 32), 255, dtype=torch.uint8)
    draw_overview(path, images, labels, torch.zeros(2, 4, 4, dtype=torch.bool), clusters)
    return np.asarray(Image.open(path).convert("RGB"))


def test_an_overview_has_a_row_an_image(tmp_path):
    picture = overview(tmp_path / "new" / "overview.png", clusters=torch.zeros(2, 4, 4, dtype=torch.int64))
    height, width, _ = picture.shape
    assert height / width == pytest.approx(2 / 4, abs=0.1)


def test_clusters_have_colours_of_their_own(tmp_path):
    one = overview(tmp_path / "one.png", clusters=torch.zeros(2, 4, 4, dtype=torch.int64))
    many = overview(tmp_path / "many.png", clusters=torch.arange(32).view(2, 4, 4))
    assert len(np.unique(many.reshape(-1, 3), axis=0)) >= len(np.unique(one.reshape(-1, 3), axis=0)) + 31


def test_losses_are_drawn_and_other_records_are_not(tmp_path):
    losses = {"loss": 2.0, "loss_fg": 3.0, "loss_bg": 1.0, "loss_prediction": 0.5}
    records = [{"kind": "clustering", "step": 0}, *({"step": step, **losses} for step in (10, 20))]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    draw_losses(log, tmp_path / "losses.png")
    assert np.asarray(Image.open(tmp_path / "losses.png").convert("L")).min() < 128


def test_a_log_without_losses_is_refused(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"kind": "clustering", "step": 0}\n')
    with pytest.raises(ValueError, match="holds no losses"):
        draw_losses(tmp_path / "log.jsonl", tmp_path / "losses.png")
    assert not (tmp_path / "losses.png").exists()
