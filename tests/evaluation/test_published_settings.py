"""What is not told is as published: another default would change every number that is compared."""

from typing import Any

import pytest

from hcl.data.dataset import DataConfig
from hcl.evaluation.crf import CRFConfig
from hcl.evaluation.foreground import ForegroundConfig
from hcl.evaluation.fully_unsupervised import FullyUnsupervisedConfig
from hcl.evaluation.linear_probe import LinearProbeConfig
from hcl.evaluation.overclustering import ClassClusteringConfig, OverclusteringConfig
from hcl.evaluation.protocol import ProtocolConfig
from hcl.evaluation.retrieval import RetrievalConfig

KMEANS = {"dimensions": 100, "iterations": 100, "restarts": 5, "init": "random"}
PUBLISHED: list[tuple[type[ProtocolConfig], dict[str, Any]]] = [
    (OverclusteringConfig, {**KMEANS, "clusters": 500, "seeds": 5, "label_resolution": 100}),
    (ClassClusteringConfig, {**KMEANS, "clusters": None, "seeds": 5, "label_resolution": 100}),
    (
        LinearProbeConfig,
        {"epochs": 10, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "crf_settings": CRFConfig()},
    ),
    (RetrievalConfig, {"memory_size": 10_240_000, "neighbours": 30, "temperature": 0.02}),
    (ForegroundConfig, {"keep_mass": [0.65, 0.7], "label_resolution": 100}),
    (
        FullyUnsupervisedConfig,
        {
            **KMEANS,
            **{"keep_mass": 0.65, "extraction_clusters": 200, "thresholds": ["published", "otsu"]},
            **{"edge_threshold": 0.03, "markov_time": 1.0, "preferred_modules": 20, "seeds": 10},
        },
    ),
]


@pytest.mark.parametrize(("protocol", "published"), PUBLISHED)
def test_protocols(protocol, published):
    config = protocol(data=DataConfig("voc", "x", "val"))
    assert {name: getattr(config, name) for name in published} == published
    assert (config.branch, config.precision, config.seed) == ("momentum", "fp32", 0)


def test_the_crf():
    published = {"gaussian_sxy": 1, "gaussian_compat": 3, "bilateral_sxy": 67, "bilateral_srgb": 3}
    assert CRFConfig() == CRFConfig(iterations=10, bilateral_compat=4, **published)


@pytest.mark.parametrize(
    ("kind", "frame"),
    [
        ("voc", (448, "resize")),
        ("coco", (320, "shorter-crop")),
        ("scenes", (448, "resize")),
        ("folder", (448, "shorter-crop")),
    ],
)
def test_frames(kind, frame):
    masks = {"masks": "y", "mask_classes": 3} if kind == "folder" else {}
    assert LinearProbeConfig(data=DataConfig(kind, "x", "val", **masks)).frame == frame
