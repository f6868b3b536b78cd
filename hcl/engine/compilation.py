"""torch.compile of the transformer blocks, and CUDA graphs of them."""

from typing import Literal

import torch
from torch import nn

from hcl.models.hcl import HCL

Compile = bool | Literal["reduce-overhead", "max-autotune"]

# All blocks of a process are one code object to the compiler. A model adds some three forms of it (with a
# gradient and without, of backbone and head) for each number format and mode, and under `fullgraph` one
# form beyond the limit is an error; eight, the default, are two models and a bit.
RECOMPILE_LIMIT = 64


def compile_blocks(model: HCL, how: Compile) -> None:
    """Compile every transformer block of a model in place; the state dict stays as it is.

    The modes with a name replay each block as a CUDA graph. What a graph gives lies in memory that the next
    pass writes again, so they are told where a pass begins: at the backbone, and at the momentum head, which
    the bank pass may run alone. Nothing else here outlives a pass, for a norm follows every block that is
    read later, and gradients are dropped before the next step.
    """
    if how is False:
        return
    mode = None if how is True else how
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    for block in (*model.backbone.vit.blocks, model.online.seg_head.seg_head, model.momentum.seg_head):
        block.compile(fullgraph=True, mode=mode)
    if mode is not None:
        for module in (model.backbone, model.momentum):
            module.register_forward_pre_hook(_begin_pass)


def _begin_pass(module: nn.Module, inputs: object) -> None:
    torch.compiler.cudagraph_mark_step_begin()
