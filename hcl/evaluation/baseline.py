"""Baselines: a protocol on a head's tokens and on everything that the head starts from."""

from collections.abc import Callable
from copy import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hcl.distributed import World
from hcl.evaluation.protocol import ProtocolConfig
from hcl.models.recorded_backbone import BackboneOverride


def run(
    protocol: Callable[[Any, World], dict[str, Any]], config: ProtocolConfig, world: World
) -> dict[str, Any]:
    """Run a protocol on the backbone's own tokens, on PM-ViT's z, on an untrained head and on the given head.

    Args:
        protocol: the ``run`` function of the protocol.
        config: settings of the protocol; without a checkpoint, the given head is left out.
        world: the ranks.

    Returns:
        The input of `hcl.evaluation.report`: ``results`` with every entry of the protocol for each kind of
        tokens, ``all_tokens`` with a description of each kind, and the facts that all kinds have in common.
    """
    reports = {name: protocol(variant, world) for name, variant in variants(config).items()}
    results = [
        {**result, "name": f"{name}: {result['name']}"}
        for name, report in reports.items()
        for result in report["results"]
    ]
    first, *others = reports.values()
    shared = {name: fact for name, fact in first.items() if all(other.get(name) == fact for other in others)}
    return {
        **shared,
        "all_tokens": {name: report["tokens"] for name, report in reports.items()},
        "results": results,
    }


def variants(config: ProtocolConfig) -> dict[str, ProtocolConfig]:
    """Return the configuration for each kind of tokens by name, each with its own output folder.

    All use the backbone of the given head, and the untrained head has the shape of the given one.
    """
    same = BackboneOverride(**asdict(config.chosen_backbone))  # in place of the checkpoint's record
    without = replace(config, checkpoint=None, backbone=same)
    chosen = {
        "backbone": replace(without, tokens="backbone"),
        "z": replace(without, tokens="pmvit"),
        "untrained head": replace(without, tokens="head"),
    }
    if config.given_head is not None:
        chosen["untrained head"].head = config.given_head.head.config
        chosen["trained head"] = copy(config)  # keeps the cached checkpoint, so that it is read once
    for name, variant in chosen.items():
        variant.output = str(Path(config.output) / name.replace(" ", "-"))
    return chosen
