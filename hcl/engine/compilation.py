"""torch.compile of all that is computed token by token."""

from typing import Literal

import torch

from hcl.models.hcl import HCL

Compile = bool | Literal["max-autotune"]

# All blocks of a process are one code object to the compiler. A model adds some three forms of it (with a
# gradient and without, of backbone and head) for each number format and mode, and under `fullgraph` one
# form beyond the limit is an error; eight, the default, are two models and a bit.
RECOMPILE_LIMIT = 64


def compile_model(model: HCL, how: Compile) -> None:
    """Compile a model's blocks, projectors and predictor in place; the state dict stays as it is.

    On a CPU the backbone's blocks are not: their weights as oneDNN lays them out, of which the compiler knows
    nothing, are worth more than what it joins.
    """
    if how is False:
        return
    on_cpu = next(model.backbone.parameters()).device.type == "cpu"
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    online, momentum = model.online.seg_head, model.momentum
    blocks = (*([] if on_cpu else model.backbone.vit.blocks), online.seg_head, momentum.seg_head)
    # Its CUDA graphs would be one a module, each with a copy of its input; `hcl.engine.replay` makes one.
    mode = "max-autotune-no-cudagraphs" if how == "max-autotune" else None
    for module in (*blocks, online.projection_head, momentum.projection_head, model.online.predictor):
        module.compile(fullgraph=True, mode=mode)
