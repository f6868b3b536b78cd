"""What the tests of clustering share."""

import torch

from hcl.clustering.sampling import BankRows


def image_rows(tokens: torch.Tensor, image: int = 0) -> BankRows:
    """Rows of one image."""
    return BankRows(tokens, torch.full((len(tokens),), image))
