"""What is not told is as published (HCL, section 0): a default that changes changes what a run learns."""

from dataclasses import asdict
from typing import Any

from hcl.data.dataset import DataConfig
from hcl.engine.config import TrainConfig

PUBLISHED: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 64,
    "optimiser": {"lr": 1e-4, "weight_decay": 0.04, "milestones": [3], "gamma": 0.1},
    "loss": {"temperature": 0.07, "momentum": 0.996},
    "head": {"kind": "block", "width": 768, "hidden": 2048, "projection_dim": 256, "heads": 12},
    "clustering": {
        **{"mode": "epoch", "k": "fixed", "foreground_clusters": 500, "background_clusters": 500},
        **{"sample_share": 0.3, "replace_share": 0.5, "iterations": 20, "keep_mass": 0.7},
        **{"centroid_momentum": 0.99, "reseed_after": 100, "bank_images": None},
    },
    "views": {
        **{"size": 224, "crop_scale": (0.8, 1.0), "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
        **{"hue": 0.1, "color_probability": 0.8, "blur_sigma": (0.1, 2.0), "blur_probability": 0.5},
        **{"grayscale_probability": 0.0},
    },
    "backbone": {"name": "dino_vits16", "weights": None, "patch_sizes": None},
    "precision": "fp32",
    "seed": 7,
}


def test_training():
    settings = asdict(TrainConfig(data=DataConfig("voc", "x", "trainaug")))
    told = {
        name: {own: settings[name][own] for own in value} if isinstance(value, dict) else settings[name]
        for name, value in PUBLISHED.items()
    }
    assert told == PUBLISHED
