"""Unsupervised foreground extraction: the backbone's attention compared with objects (HCL, section 7)."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from hcl.bounds import require_at_least
from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.foreground_scores import ForegroundScores, object_labels, require_objects
from hcl.evaluation.metrics import over_seeds
from hcl.evaluation.protocol import ProtocolConfig, facts, open_extractor, open_labelled
from hcl.evaluation.resolution import IMAGES_AT_A_TIME, nearest
from hcl.evaluation.token_store import TokenStore, stored_tokens
from hcl.evaluation.tokens import TokenKind
from hcl.progress import progress
from kernels.foreground import foreground_mask


@dataclass(kw_only=True)
class ForegroundConfig(ProtocolConfig):
    """Jaccard index of the foreground map against "any object class".

    Args:
        tokens: kind of tokens, which does not affect the map: that comes from the backbone alone. A
            checkpoint only says which backbone to use.
        keep_mass: shares of the attention to keep as foreground; each is scored. 0.65 is the share of the
            fully unsupervised protocol, 0.7 that of training.
        label_resolution: side in cells at which maps and labels are compared; both are resampled by nearest
            neighbour.
    """

    needs_head: ClassVar[bool] = False

    tokens: TokenKind = "backbone"
    keep_mass: list[float] = field(default_factory=lambda: [0.65, 0.7])
    label_resolution: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "label_resolution")
        if not self.keep_mass or not all(0 < share <= 1 for share in self.keep_mass):
            raise ValueError(f"keep_mass is {self.keep_mass}; it must be one or more shares in (0, 1]")


def run(config: ForegroundConfig, world: World) -> dict[str, Any]:
    """Score the foreground maps of a data set.

    Returns:
        The input of `hcl.evaluation.report`, with one entry under ``results`` for each share.

    Raises:
        ValueError: the classes do not separate objects from the rest, or a setting, file or label is invalid.
        FileNotFoundError: data or weights are missing.
    """
    dataset = open_labelled(config.data, world)
    require_objects(dataset)
    extractor = open_extractor(config, world)
    with stored_tokens(config, dataset, extractor, world) as store:
        results = [
            score(store, share, dataset, config, world)
            for share in progress(world, "foreground", "map", steps=config.keep_mass)
        ]
    described = facts(
        config,
        dataset,
        extractor,
        label_resolution=config.label_resolution,
        labels_used_for="nothing but scoring",
    )
    return {**described, "results": results}


def score(
    store: TokenStore, keep_mass: float, dataset: Dataset, config: ForegroundConfig, world: World
) -> dict[str, Any]:
    """Return the entry of ``results`` for one share of the attention."""
    metric, resolution = ForegroundScores().to(world.device), config.label_resolution
    mine = world.slice(len(store))
    parts = zip(
        store.attention[mine].split(IMAGES_AT_A_TIME), store.labels[mine].split(IMAGES_AT_A_TIME), strict=True
    )
    for attention, labels in parts:
        maps = nearest(foreground_mask(attention.to(world.device), keep_mass), resolution)
        metric.update(maps, object_labels(nearest(labels.to(world.device), resolution), dataset))
    numbers = metric.compute()._asdict()
    name = f"attention, θ = {keep_mass:g}"
    return {"name": name, "keep_mass": keep_mass, **over_seeds({config.seed: numbers})}
