"""A fingerprint of everything that tokens are made from: the same fingerprint means the same tokens."""

import hashlib
import json

import hcl
from hcl.data.samples import Dataset
from hcl.evaluation.protocol import Frame
from hcl.evaluation.tokens import TokenExtractor
from hcl.models.digest import digest_of_weights
from pipelines.decoding import decoder

FORMAT = 3
"""Increased whenever tokens are computed or stored differently, also between releases."""


def fingerprint(dataset: Dataset, extractor: TokenExtractor, frame: Frame) -> str:
    """Return the fingerprint of a data set's tokens and labels at a frame: 32 hexadecimal digits.

    It depends on the weights, the levels, the kind of token, the precision, the kind of device, how images
    are decoded there, this project's version, and the path, size and modification time of every image and
    mask. It does not depend on the versions of libraries.

    Raises:
        FileNotFoundError: an image or a mask is missing.
    """
    backbone, head = extractor.backbone, extractor.head
    made_from = {
        "format": FORMAT,
        "version": hcl.__version__,
        "files": _digest_of_files(dataset),
        "label_map": None if dataset.label_map is None else dataset.label_map.tolist(),
        "frame": frame._asdict(),
        "kind": extractor.kind,
        "precision": extractor.precision,
        "device": extractor.device.type,
        "decoder": decoder(extractor.device),
        "patch_sizes": list(backbone.patch_sizes),
        "vit": repr(backbone.vit.config),
        "backbone": extractor.backbone_digest,
        "head": head and [repr(head.config), digest_of_weights(head)],
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]


def _digest_of_files(dataset: Dataset) -> str:
    total = hashlib.sha256()
    for sample in dataset.samples:
        for path in (sample.image, sample.label):
            assert path is not None
            status = path.stat()
            total.update(f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return total.hexdigest()
