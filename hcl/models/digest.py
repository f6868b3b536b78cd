"""A digest of weights: equal digests mean equal weights, whatever files they are from."""

import hashlib

import torch
from torch import nn


def digest_of_weights(module: nn.Module) -> str:
    """SHA-256 of a module's state: names, dtypes, shapes and values."""
    total = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()
