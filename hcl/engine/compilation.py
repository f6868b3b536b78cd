"""torch.compile for a model's blocks and heads."""

from typing import Literal

import torch

from hcl.models.hcl import HCL

Compile = bool | Literal["max-autotune"]

# To the compiler, all blocks of a process are one code object. A model adds about three variants of it (with
# and without gradient, of backbone and head) for each number format and mode, and under `fullgraph` one
# variant beyond the limit is an error. The default of eight suffices for little more than two models.
RECOMPILE_LIMIT = 64


def compile_model(model: HCL, how: Compile) -> None:
    """Compile a model's blocks, projectors and predictor in place; the state dict does not change.

    On a CPU the backbone's blocks are not compiled: oneDNN's weight layout, which the compiler does not know,
    saves more time than fusion would.
    """
    if how is False:
        return
    on_cpu = next(model.backbone.parameters()).device.type == "cpu"
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    online, momentum = model.online.seg_head, model.momentum
    blocks = (*([] if on_cpu else model.backbone.vit.blocks), online.seg_head, momentum.seg_head)
    # The compiler would make one CUDA graph per module, each with a copy of its input; `hcl.engine.replay`
    # makes a single one.
    mode = "max-autotune-no-cudagraphs" if how == "max-autotune" else None
    for module in (*blocks, online.projection_head, momentum.projection_head, model.online.predictor):
        module.compile(fullgraph=True, mode=mode)
