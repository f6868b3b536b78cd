"""A protocol on everything that a head starts from, beside the head itself: every number has its "before"."""

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
        protocol: its ``run`` function.
        config: its settings; without a checkpoint there is no given head.
        world: the ranks.

    Returns:
        What `hcl.evaluation.report` takes: under ``results`` every entry of the protocol for each kind of
        tokens, under ``all_tokens`` what each kind is, and what the protocol says of all kinds alike.
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
    """The configuration for each kind of tokens, by its name; each has an output folder of its own.

    All are of one backbone, the given head's, and both heads of one shape.
    """
    same = BackboneOverride(**asdict(config.chosen_backbone))  # without a checkpoint that would say so
    without = replace(config, checkpoint=None, backbone=same)
    chosen = {
        "backbone": replace(without, tokens="backbone"),
        "z": replace(without, tokens="pmvit"),
        "untrained head": replace(without, tokens="head"),
    }
    if config.given_head is not None:
        chosen["untrained head"].head = config.given_head.head.config
        chosen["trained head"] = copy(config)  # which keeps what was read of the checkpoint
    for name, variant in chosen.items():
        variant.output = str(Path(config.output) / name.replace(" ", "-"))
    return chosen
