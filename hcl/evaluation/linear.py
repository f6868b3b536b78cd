"""Scoring a given linear classifier, this project's or a published one, on frozen tokens (HCL, section 7)."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from torch import nn

from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.crf import CRFConfig, require_crf
from hcl.evaluation.linear_classifier import refuse_other_channels, refuse_other_classes
from hcl.evaluation.linear_scores import score
from hcl.evaluation.protocol import ProtocolConfig, facts, open_extractor, open_labelled
from hcl.evaluation.token_store import stored_tokens
from hcl.evaluation.tokens import TokenExtractor
from hcl.models.digest import digest_of_weights
from hcl.models.head_files import load_linear_classifier


@dataclass(kw_only=True)
class LinearScoringConfig(ProtocolConfig):
    """Settings of scoring a linear classifier.

    Args:
        crf: whether to also score the predictions after refinement by a dense CRF.
        crf_settings: settings of that CRF.
    """

    crf: bool = False
    crf_settings: CRFConfig = field(default_factory=CRFConfig)


@dataclass(kw_only=True)
class LinearConfig(LinearScoringConfig):
    """Score a linear classifier that was trained before.

    Args:
        classifier: file of the classifier: linear_classifier.pth.tar of `linear-probe`, or a published one.
    """

    classifier: str

    @cached_property
    def digests(self) -> dict[str, str]:
        """The inherited digests and that of the classifier.

        Raises as `hcl.models.head_files.load_linear_classifier`, too.
        """
        own = digest_of_weights(load_linear_classifier(self.classifier))
        return super().digests | {"classifier": own}


def run(config: LinearConfig, world: World) -> dict[str, Any]:
    """Score the classifier on the configuration's tokens.

    Returns:
        The input of `hcl.evaluation.report`.

    Raises:
        ValueError: the classifier does not fit the tokens or the classes, or a file or label is invalid.
        FileNotFoundError: data, weights or the classifier are missing.
        ModuleNotFoundError: the requested CRF needs a package that is not installed.
    """
    if config.crf:
        require_crf(config.crf_settings, config.frame.size, world.device)
    classifier, dataset, extractor = open_given(config, world)
    use = f"nothing in this run ({config.classifier} was trained on labels before)"
    return {
        **report(classifier, extractor, dataset, config, world, labels_used_for=use),
        "classifier": config.classifier,
    }


class Given(NamedTuple):
    """A classifier on its device, the data set to score it on, and the extractor of the tokens it takes."""

    classifier: nn.Conv2d
    dataset: Dataset
    extractor: TokenExtractor


def open_given(config: LinearConfig, world: World) -> Given:
    """Open the classifier, the data set and the extractor of a configuration.

    Raises:
        ValueError: the classifier does not fit the tokens or the classes, or a file or label is invalid.
        FileNotFoundError: data, weights or the classifier are missing.
    """
    classifier = load_linear_classifier(config.classifier)
    dataset = open_labelled(config.data, world)
    extractor = open_extractor(config, world)
    refuse_other_channels(classifier, extractor.channels, config.classifier)
    refuse_other_classes(classifier, dataset, config.classifier)
    return Given(classifier.to(world.device), dataset, extractor)


def report(
    classifier: nn.Conv2d,
    extractor: TokenExtractor,
    dataset: Dataset,
    config: LinearScoringConfig,
    world: World,
    *,
    labels_used_for: str,
) -> dict[str, Any]:
    """Return the facts and scores of a classifier."""
    crf = config.crf_settings if config.crf else None
    with stored_tokens(config, dataset, extractor, world) as store:
        results = score(classifier, store, dataset, config, crf, world)
    return {
        **facts(
            config,
            dataset,
            extractor,
            label_resolution=config.frame.size,
            labels_used_for=labels_used_for,
            crf=crf.described(world.device) if crf else "off",
        ),
        "results": results,
    }
