import subprocess
import sys


def test_kernels_run_where_neither_triton_nor_pydensecrf_is_installed():
    code = """
import sys
sys.modules["triton"] = None
sys.modules["pydensecrf"] = None
import torch
from kernels.aggregate import aggregate_tokens
from kernels.attention import attend
from kernels.crf import dense_crf
from kernels.fba import fba_contrastive
from kernels.foreground import foreground_mask
from kernels.kmeans import kmeans
from kernels.linear import linear_gelu
from kernels.views import photometric_views
x = torch.eye(4)
assert kmeans(x, 2).centroids.shape == (2, 4)
assert fba_contrastive(x, x, x[0] > 0, x, x, 0.1).assignment.tolist() == [0, 1, 2, 3]
assert foreground_mask(torch.ones(1, 1, 2, 2), 0.7).shape == (1, 2, 2)
assert attend(torch.ones(1, 2, 3, 1, 4), [1, 1]).shape == (1, 2, 4)
assert torch.equal(linear_gelu(x, x, x[0]), torch.nn.functional.gelu(x + x[0]))
still = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]).expand(1, 1, 6)
assert not photometric_views(torch.zeros(1, 2, 2, 3), still, (0, 0, 0), (1, 1, 1)).any()
p = torch.tensor([0.1, 0.9]).view(1, 2, 1, 1)
assert dense_crf(p, torch.zeros(1, 3, 1, 1, dtype=torch.uint8), impl="torch").argmax(dim=1) == 1
try:
    kmeans(x, 2, impl="triton")
except ModuleNotFoundError as error:
    assert "install it" in str(error)
else:
    raise AssertionError("ran without triton")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
