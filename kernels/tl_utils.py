"""Device functions that several kernels share, and Triton's names for torch's dtypes.

In kernels: `i_` index, `o_` offsets, `m_` mask, `b_` block of values, `_ptr` pointer.
"""

from functools import cache

import torch
import triton
import triton.language as tl

from kernels.dispatch import TRITON_INTERPRETED, capability

TL_DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}

# "bf16x6" splits float32 operands into three bfloat16 each, which keep all of their 24 bits; terms that are
# left out of a product are below 2^-24 of it. Assignments are therefore as accurate as with "ieee", at the
# rate of the matrix units of both NVIDIA and AMD ("tf32x3" keeps 22 bits and is NVIDIA's). The interpreter,
# always in float32, does not know this name.
DOT_PRECISION = "ieee" if TRITON_INTERPRETED else "bf16x6"


def is_hopper(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is on a GPU of compute capability 9, where some kernels have other tiles."""
    return tensor.is_cuda and not torch.version.hip and capability(tensor.device) == 9


def is_cramped(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is on an NVIDIA GPU with only 99 KiB of shared memory per block, as on Ada."""
    return tensor.is_cuda and not torch.version.hip and shared_memory(tensor.device) < 160 * 1024


@cache
def shared_memory(device: torch.device) -> int:
    """Return the bytes of shared memory that a block can use on a GPU."""
    properties = torch.cuda.get_device_properties(device)
    # AMD's GPUs have a single limit, without an opt-in property.
    return getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block)


@triton.jit
def load_rows(ptr, o_rows, m_rows, start, WIDTH: tl.constexpr, BLOCK: tl.constexpr, DTYPE: tl.constexpr):
    """Load BLOCK columns from `start` on, of rows of WIDTH columns; 0 out of bounds. (rows, BLOCK)."""
    o_columns = start + tl.arange(0, BLOCK)
    mask = m_rows[:, None]
    # No column mask where none is needed: it would prevent wide loads.
    if WIDTH % BLOCK != 0:
        mask = mask & (o_columns < WIDTH)[None, :]
    # 64 bits: rows x WIDTH may exceed 2^31.
    pointers = ptr + o_rows.to(tl.int64)[:, None] * WIDTH + o_columns[None, :]
    return tl.load(pointers, mask=mask, other=0.0).to(DTYPE)


@triton.jit
def similarity(
    a_ptr,
    o_a,
    m_a,
    b_ptr,
    o_b,
    m_b,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Multiply rows of a with rows of b, BLOCK columns at a time. (rows of a, rows of b) float32."""
    products = tl.zeros((o_a.shape[0], o_b.shape[0]), dtype=tl.float32)
    for start in range(0, WIDTH, BLOCK):
        b_a = load_rows(a_ptr, o_a, m_a, start, WIDTH, BLOCK, DTYPE)
        b_b = load_rows(b_ptr, o_b, m_b, start, WIDTH, BLOCK, DTYPE)
        products = tl.dot(b_a, b_b.T, products, input_precision=PRECISION)
    return products
