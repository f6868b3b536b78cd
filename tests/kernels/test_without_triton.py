import subprocess
import sys


def test_kernels_run_where_triton_is_not_installed():
    code = """
import sys
sys.modules["triton"] = None
import torch
from kernels.aggregate import aggregate_tokens
from kernels.fba import fba_contrastive
from kernels.foreground import foreground_mask
from kernels.kmeans import kmeans
x = torch.eye(4)
assert kmeans(x, 2).centroids.shape == (2, 4)
assert fba_contrastive(x, x, x[0] > 0, x, x, 0.1).assignment.tolist() == [0, 1, 2, 3]
assert foreground_mask(torch.ones(1, 1, 2, 2), 0.7).shape == (1, 2, 2)
try:
    kmeans(x, 2, impl="triton")
except ModuleNotFoundError as error:
    assert "install it" in str(error)
else:
    raise AssertionError("ran without triton")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
