"""fp32 is float32, whatever torch was told before."""

import os
import subprocess
import sys

import pytest
import torch

from hcl.precision import forbid_tf32, mixed, product_dtype

SINGLE, BRAIN = torch.float32, torch.bfloat16
FOUND = """
import torch
from hcl.precision import forbid_tf32
print(torch.backends.cuda.matmul.allow_tf32)
forbid_tf32()
print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
"""


def test_an_environment_that_switches_tf32_on_is_not_followed():
    found = subprocess.run(
        [sys.executable, "-c", FOUND],
        env=os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["True", "False", "False"]


def test_a_program_that_rounds_its_own_matrix_products_does_not_round_ours():
    asked = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        forbid_tf32()
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(asked)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", SINGLE), ("bf16", BRAIN), ("fp8", BRAIN)])
def test_products_are_of_bfloat16_unless_all_is_float32(precision, dtype):
    with mixed(torch.device("cpu"), precision):
        assert product_dtype(torch.zeros(1)) == (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
