import os
import subprocess
import sys
from pathlib import Path

KERNELS = {
    "aggregate_forward",
    "attention_kernel",
    "crf_filter_kernel",
    "crf_gaussian_kernel",
    "crf_near_kernel",
    "crf_sums_kernel",
    "crf_update_kernel",
    "fba_bwd_kernel",
    "fba_fwd_kernel",
    "foreground_kernel",
    "fuse_forward",
    "grey_kernel",
    "halving_kernel",
    "jitter_kernel",
    "linear_gelu_kernel",
    "nearest_centroid_kernel",
    "norm_backward",
    "product_kernel",
    "segment_sums_kernel",
    "upsample_backward",
}


def test_every_launch_compiles_as_it_is_bound_and_is_on_its_tensors_device():
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(Path(__file__).with_name("rehearsal.py"))]
    rehearsed = subprocess.run(
        command, env=environment | {"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert set(rehearsed.stdout.split()) == KERNELS
