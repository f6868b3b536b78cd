"""A ComponentModel as a program of torch.export and of ONNX, for any number of images of one size."""

import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from hcl.models.component_model import ComponentModel

OUTPUTS = ("tokens", "attention", "foreground")
Program = Callable[[Tensor], tuple[Tensor, ...]]


def trace(model: ComponentModel, size: tuple[int, int]) -> ExportedProgram:
    """Trace the model's graph for images (batch, 3, *size) with a dynamic batch size.

    Raises:
        ValueError: the images are smaller than a patch of the coarsest level.
    """
    example = torch.zeros(2, 3, *size)
    with torch.no_grad():
        model(example)  # its errors are clearer than those of tracing
        return torch.export.export(model, (example,), dynamic_shapes=_shapes(), strict=False)


def to_pt2(program: ExportedProgram) -> bytes:
    """Return an archive that `torch.export.load` reads, also on machines without this project."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def to_onnx(program: ExportedProgram) -> bytes:
    """Convert the graph to ONNX with its weights, the input ``images`` and the outputs `OUTPUTS`.

    Raises:
        ModuleNotFoundError: a package that ONNX needs is not installed.
    """
    require_onnx()
    with _quiet():
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamic_shapes=_shapes(),
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            verbose=False,
        )
    assert exported is not None
    return exported.model_proto.SerializeToString()


def open_pt2(content: bytes) -> Program:
    """Load the result of `to_pt2`, ready to run."""
    return torch.export.load(io.BytesIO(content)).module()


def open_onnx(content: bytes) -> Program:
    """Load the result of `to_onnx`, to be run by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(list(OUTPUTS), {"images": images.numpy()})))

    return run


def require_onnx() -> None:
    """Raise a ModuleNotFoundError that says what to install, unless ONNX can be written and run."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError(
                f"ONNX needs the package {package}, which is not installed: "
                "pip install '.[export]' in the project's folder, or leave out onnx from --forms"
            ) from missing


def _shapes() -> tuple[dict[int, Any]]:
    return ({0: Dim("batch", min=1)},)


def _stable_sort(x: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """Translate torch.sort(stable=True), which torch cannot; TopK also keeps the order of equal values."""
    from onnxscript import opset18 as op

    everything = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
    return op.TopK(x, everything, axis=dim, largest=int(descending), sorted=1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's messages on packages that this project does not use, and on its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
