import json

import torch

from benchmarks import pipeline
from benchmarks.published_views import PublishedViews
from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.scenes import write_scenes
from pipelines.draws import ViewsConfig
from pipelines.training_views import TrainingViews

SMALL = [
    *("--images", "4", "--batch_size", "2", "--size", "64", "--threads", "1", "--rounds", "1"),
    *("--step_batch_size", "2", "--backbone", "tiny"),
]


def test_the_report_sets_every_source_against_the_step(capsys):
    report = pipeline.main(SMALL)
    assert json.loads(capsys.readouterr().out) == report
    assert {"published", "dali_cpu", "dali_cpu_kept"} <= report["images_per_second"].keys()
    assert report["times_published"]["published"] == 1
    assert all(rate > 0 for rate in report["times_the_step"].values())


def test_the_published_views_are_ours_up_to_rounding_to_bytes(tmp_path):
    """Hue turns in HSV there and in YIQ here, so it is left out."""
    write_scenes(tmp_path / "scenes", train=3, val=1, size=160)
    dataset = open_dataset(DataConfig("scenes", str(tmp_path / "scenes"), "train"))
    config = ViewsConfig(size=64, hue=0.0, saturation=0.0)
    (ours,) = TrainingViews(dataset, config, seed=3).batches(0, [torch.arange(3).numpy()])
    theirs = [torch.stack(views) for views in zip(*PublishedViews(dataset, config, seed=3), strict=True)]
    for view, expected in zip(ours.views, theirs, strict=True):
        assert (view - expected).abs().mean() < 0.03
