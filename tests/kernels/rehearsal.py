"""Every launch as on an H100, without one: arguments are bound and kernels compiled, but nothing runs.

What Triton's interpreter cannot show: how the launcher's own arguments are specialised (a 1 becomes a
constant, a stride may be aligned or not), whether the kernel compiles so, and on which device it is launched.
"""

from contextlib import contextmanager

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from kernels import dispatch

LAUNCH = JITFunction.run
guarded: list[torch.Tensor] = []
launched: set[str] = set()


class AbsentH100:
    """What Triton asks a driver before a launch."""

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)


@contextmanager
def device_of(tensor):
    guarded.append(tensor)
    yield
    guarded.pop()


def compile_only(kernel, *arguments, grid, warmup, **options):
    assert guarded, f"{kernel.__name__} is launched on the current device, not on its tensors'"
    launched.add(kernel.__name__)
    return LAUNCH(kernel, *arguments, grid=grid, warmup=True, **options)


def rehearse() -> None:
    driver.set_active(AbsentH100())
    JITFunction.run = compile_only
    torch.cuda.device_of = device_of
    dispatch._require_triton = lambda tensor, available: None


def aggregate(grids, width, dtype):
    from kernels.aggregate import aggregate_tokens, fuse_tokens

    sequences = [torch.randn(1, 1 + h * w, width, dtype=dtype, requires_grad=True) for h, w in grids]
    norm, outputs = torch.ones(width, requires_grad=True), 2 * width
    aggregate_tokens(sequences, grids, norm, norm, impl="triton").sum().backward()
    weight = torch.randn(outputs, (len(grids) + 1) * width, dtype=dtype, requires_grad=True)
    bias, norm = torch.zeros(outputs, dtype=dtype), torch.ones(outputs, requires_grad=True)
    fuse_tokens(sequences, grids, weight, bias, norm, norm, impl="triton").sum().backward()


def attention(lengths, heads, width, dtype):
    from kernels.attention import attend

    attend(torch.randn(1, sum(lengths), 3, heads, width, dtype=dtype), lengths, impl="triton")


def contrast(tokens, clusters, width, dtype):
    from kernels.fba import fba_contrastive

    q = torch.randn(tokens, width, dtype=dtype, requires_grad=True)
    banks = torch.randn(2, clusters, width, dtype=dtype)
    out = fba_contrastive(q, q.detach(), torch.rand(tokens) < 0.5, *banks, 0.07, impl="triton")
    (out.loss_fg + out.loss_bg).backward()


def cluster(rows, clusters, width, dtype):
    from kernels.kmeans import lloyd_step

    x, centroids = (torch.randn(count, width, dtype=dtype) for count in (rows, clusters))
    lloyd_step(x, centroids, impl="triton")
    lloyd_step(x, centroids, weights=torch.ones_like(x[:, 0], dtype=torch.int64), impl="triton")


def foreground(heads, height, width):
    from kernels.foreground import foreground_mask

    foreground_mask(torch.rand(1, heads, height, width), 0.7, impl="triton")


def activate(rows, inputs, outputs, dtype):
    from kernels.linear import linear_gelu

    x, weight = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
    linear_gelu(x, weight, weight[:, 0], impl="triton")


def view(views, batch, side):
    from kernels.views import photometric_views

    doubled, draws = torch.zeros(batch, side, side, 3), torch.ones(views, batch, 6)
    photometric_views(doubled, draws, (0, 0, 0), (1, 1, 1), impl="triton")


def refine(classes, height, width):
    from kernels.crf import dense_crf

    images = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    dense_crf(torch.rand(1, classes, height, width), images, iterations=1, impl="triton")


def main() -> None:
    rehearse()
    aggregate([(4, 4), (2, 2), (1, 1)], 96, torch.bfloat16)
    aggregate([(1, 1)], 17, torch.float32)
    attention([1], 1, 16, torch.float16)
    attention([784, 197, 50, 1], 6, 64, torch.bfloat16)
    contrast(1, 1, 8, torch.float32)
    contrast(37, 5, 256, torch.bfloat16)
    cluster(1, 1, 100, torch.float32)
    cluster(300, 5, 256, torch.bfloat16)
    foreground(1, 1, 1)
    foreground(6, 14, 9)
    activate(1, 16, 16, torch.float16)
    activate(300, 80, 528, torch.bfloat16)
    view(1, 1, 2)
    view(2, 3, 448)
    refine(1, 3, 5)
    refine(21, 9, 9)
    print(*sorted(launched))


if __name__ == "__main__":
    main()
