"""Comparison of an exported program with the model that it came from."""

from typing import NamedTuple

import torch
from torch import Tensor

from hcl.export.programs import Program
from hcl.models.component_model import ComponentModel

BATCHES = (1, 3)
"""Batch sizes; neither is the one that a program is traced with."""
FLIPPED_SHARE = 0.01
"""Share of cells whose foreground may differ: where attention ties with the threshold, rounding decides."""


class Agreement(NamedTuple):
    """Greatest absolute differences of tokens and attention; numbers of flipped and all foreground cells."""

    tokens: float
    attention: float
    flipped: int
    cells: int

    def __str__(self) -> str:
        return (
            f"max error {self.tokens:.1e} in tokens, {self.attention:.1e} in attention, "
            f"{self.flipped} of {self.cells} foreground cells differ"
        )


@torch.no_grad()
def compare(program: Program, model: ComponentModel, size: tuple[int, int]) -> Agreement:
    """Compare a program with the model on images of noise, in batches of `BATCHES`.

    Args:
        program: returns tokens, attention and foreground for images (B, 3, *size).
        model: the model, on the CPU.
        size: height and width in pixels.
    """
    found = Agreement(0.0, 0.0, 0, 0)
    for batch in BATCHES:
        images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(batch))
        given, expected = program(images), model(images)
        tokens, attention = ((a - b).abs().max() for a, b in zip(given[:2], expected[:2], strict=True))
        found = Agreement(
            _greater(found.tokens, tokens),
            _greater(found.attention, attention),
            found.flipped + int((given[2] != expected[2]).sum()),
            found.cells + expected[2].numel(),
        )
    return found


def _greater(known: float, new: Tensor) -> float:
    """Return the greater of the two; NaN is greater than anything."""
    return torch.maximum(torch.tensor(known), new).item()


def require_agreement(name: str, found: Agreement, tolerance: float) -> None:
    """Raise a ValueError unless the differences are within the tolerances; NaN never is."""
    near = found.tokens <= tolerance and found.attention <= tolerance
    if not near or found.flipped > FLIPPED_SHARE * found.cells:
        raise ValueError(
            f"{name} was not written, because its results differ too much from the model's ({found}; the "
            f"tolerance is {tolerance:g}, and {FLIPPED_SHARE:.0%} of the cells)"
        )
