import itertools

import pytest
import torch

from kernels.precision import compute_dtype

HALF, BRAIN, SINGLE, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64


@pytest.mark.parametrize("dtypes", [*itertools.product([HALF, BRAIN, SINGLE, DOUBLE], repeat=2)])
def test_the_widest_dtype_counts_and_none_below_float32(dtypes):
    expected = DOUBLE if DOUBLE in dtypes else SINGLE
    assert compute_dtype(*(torch.zeros(1, dtype=dtype) for dtype in dtypes)) == expected
