"""torch.compile of all that is computed token by token, and CUDA graphs of the frozen backbone."""

from typing import Literal

import torch

from hcl.engine.replay import Replayed
from hcl.models.hcl import HCL

Compile = bool | Literal["reduce-overhead", "max-autotune"]

# All blocks of a process are one code object to the compiler. A model adds some three forms of it (with a
# gradient and without, of backbone and head) for each number format and mode, and under `fullgraph` one
# form beyond the limit is an error; eight, the default, are two models and a bit.
RECOMPILE_LIMIT = 64


def compile_model(model: HCL, how: Compile) -> None:
    """Compile a model's blocks, projectors and predictor in place; the state dict stays as it is.

    The modes with a name also replay the backbone's pass as a CUDA graph (`Replayed`): it is most of a step's
    launches, and nothing in it changes.
    """
    if how is False:
        return
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    online, momentum = model.online.seg_head, model.momentum
    blocks = (*model.backbone.vit.blocks, online.seg_head, momentum.seg_head)
    # Its graphs would be one a module.
    mode = "max-autotune-no-cudagraphs" if how == "max-autotune" else None
    for module in (*blocks, online.projection_head, momentum.projection_head, model.online.predictor):
        module.compile(fullgraph=True, mode=mode)
    if how is not True:
        model.backbone.forward = Replayed(model.backbone.forward)  # type: ignore[assignment, method-assign]
