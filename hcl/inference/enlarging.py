"""Labels at the size of a photograph, from scores on the grid of its tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor

BAND = 2**24
"""Number of enlarged scores in memory at once: 64 MB."""


def labels_at(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the label with the greatest score at every pixel, after bilinear upsampling of the scores.

    Like ``interpolate(scores, size, mode="bilinear").argmax()``, but in bands of rows: for a photograph of
    twelve million pixels, the upsampled scores of twenty labels would take a gigabyte.

    Args:
        scores: (labels, h, w) floating point, at most 256 labels.
        size: (H, W).

    Returns:
        (H, W) uint8, on the device of the scores.
    """
    height, width = size
    wide = F.interpolate(scores[None], size=(scores.shape[1], width), mode="bilinear")[0]
    # Row y samples the source at (y + 1/2) · h / H - 1/2, as with align_corners=False.
    places = (torch.arange(height, device=scores.device) + 0.5) * (scores.shape[1] / height) - 0.5
    places = places.clamp(0, scores.shape[1] - 1)
    above = places.long()
    below = (above + 1).clamp_max(scores.shape[1] - 1)
    share = (places - above).to(scores.dtype)[:, None]
    labels = torch.empty(size, dtype=torch.uint8, device=scores.device)
    rows = max(BAND // (len(scores) * width), 1)
    for start in range(0, height, rows):
        band = slice(start, start + rows)
        enlarged = torch.lerp(wide[:, above[band]], wide[:, below[band]], share[band])
        labels[band] = enlarged.argmax(dim=0)
    return labels
