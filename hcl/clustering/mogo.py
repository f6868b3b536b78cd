"""MoGoClustering: clusters of the whole data set's foreground and background tokens (HCL, section 4)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hcl.bounds import require_at_least, require_share
from hcl.clustering.bank import Bank, place
from hcl.clustering.sampling import BankRows
from hcl.distributed import World
from hcl.randomness import generator
from kernels.kmeans import KMeans, NotFiniteError, kmeans, momentum_centroid_update

SIDES = ("foreground", "background")
Banks = tuple[Bank, Bank]
"""This rank's shares of the foreground's and the background's bank."""


@dataclass
class ClusteringConfig:
    """Settings of the token bank and its clusters.

    Args:
        mode: "epoch" renews the bank and clusters it before each epoch (as published); "online" clusters
            once, then moves the centroids with every batch (HCL, section 11).
        k: "fixed" uses the two numbers of clusters as given; "auto" never more than a bank has tokens.
        foreground_clusters: number of clusters K of the foreground bank.
        background_clusters: number of clusters K of the background bank.
        bank_images: make a bank from at most this many images, spread evenly over the training set; None:
            from all of them. For data sets whose bank does not fit into the memory of all ranks together.
        sample_share: share of each image's foreground and background tokens that enters the bank, in (0, 1].
        replace_share: share of the bank replaced before each epoch after the first, in (0, 1].
        iterations: Lloyd iterations of k-means.
        reuse: whether a bank is made from the backbone's tokens of the previous epoch, kept in memory; "auto"
            keeps them if they fit into half of the free memory, "never" runs the backbone again.
        keep_mass: share of the CLS attention that is kept as foreground, in (0, 1].
        centroid_momentum: momentum of the centroids in the online mode, in [0, 1].
        reseed_after: steps without a token after which the online mode re-seeds a cluster.
    """

    mode: Literal["epoch", "online"] = "epoch"
    k: Literal["fixed", "auto"] = "fixed"
    foreground_clusters: int = 500
    background_clusters: int = 500
    bank_images: int | None = None
    sample_share: float = 0.3
    replace_share: float = 0.5
    iterations: int = 20
    reuse: Literal["auto", "always", "never"] = "auto"
    keep_mass: float = 0.7
    centroid_momentum: float = 0.99
    reseed_after: int = 100

    def __post_init__(self) -> None:
        counts = ("foreground_clusters", "background_clusters", "bank_images", "iterations", "reseed_after")
        require_at_least(1, self, *counts, prefix="clustering.")
        if self.bank_images is not None and self.reuse == "always":
            raise ValueError(
                "clustering.reuse cannot be always with clustering.bank_images, whose images are always "
                "passed through the backbone again: choose auto or never"
            )
        require_share(self, "sample_share", "replace_share", "keep_mass", prefix="clustering.")
        if not 0 <= self.centroid_momentum <= 1:
            raise ValueError(
                f"clustering.centroid_momentum is {self.centroid_momentum}; it must lie in [0, 1]"
            )


class Centroids(NamedTuple):
    """Raw centroids of the two banks, (K_fg, C) and (K_bg, C), float32."""

    foreground: Tensor
    background: Tensor


class MoGoClustering:
    """The two banks and their centroids, and their updates from epoch to epoch and from step to step.

    Attributes:
        banks: this rank's shares of foreground and background rows; None before the first pass, and in the
            online mode after it as well.
        centroids: centroids of the last clustering, which the online mode moves on; None before it.
    """

    def __init__(self, config: ClusteringConfig, *, seed: int, world: World) -> None:
        self.config = config
        self.seed = seed
        self.world = world
        self.banks: Banks | None = None
        self.centroids: Centroids | None = None
        self._idle: tuple[Tensor, Tensor] | None = None

    def due(self, epoch: int) -> bool:
        """Whether a bank pass comes before this epoch."""
        return self.config.mode == "epoch" or epoch == 0

    def refresh(
        self,
        epoch: int,
        samples: Iterable[tuple[BankRows, BankRows]],
        after_step: Callable[[], object] = lambda: None,
    ) -> dict[str, float]:
        """Update the banks from a bank pass and cluster them again.

        Args:
            epoch: the epoch that the clusters are for.
            samples: this rank's foreground and background rows, batch by batch, the images in any order.
            after_step: called before each k-means and after each of its steps.

        Returns:
            Figures for the log: rows, clusters and k-means inertia per row of each bank.

        Raises:
            ValueError: a bank has fewer rows than clusters or, with ``k`` "auto", no rows.
            FloatingPointError: a bank holds rows that are not finite.
        """
        foreground, background = (list(parts) for parts in zip(*samples, strict=True))
        self._take_in(epoch, foreground, background)
        assert self.banks is not None
        sizes = (self.config.foreground_clusters, self.config.background_clusters)
        figures: dict[str, float] = {}
        centroids = []
        for side, bank, clusters in zip(SIDES, self.banks, sizes, strict=True):
            result = self._cluster(bank, clusters, side, epoch, after_step)
            centroids.append(result.centroids.float())
            figures[f"{side}_rows"] = bank.total
            figures[f"{side}_clusters"] = len(result.centroids)
            figures[f"{side}_inertia"] = result.inertia / bank.total
        self.centroids = Centroids(*centroids)
        if self.config.mode == "online":
            self.banks = None
            self._idle = (_never_idle(centroids[0]), _never_idle(centroids[1]))
        return figures

    def _take_in(self, epoch: int, foreground: list[BankRows], background: list[BankRows]) -> None:
        """Fill or renew the banks; the old banks and the new rows are released, because they are large."""
        before: list[Bank | None] = list(self.banks or (None, None))
        self.banks = None
        renewed_fg = self._renewed(before.pop(0), foreground, SIDES[0], epoch)
        self.banks = renewed_fg, self._renewed(before.pop(0), background, SIDES[1], epoch)

    def _renewed(self, bank: Bank | None, parts: list[BankRows], side: str, epoch: int) -> Bank:
        new = place(parts, self.world)
        if bank is None:
            return Bank.of(new, self.world)
        rng = generator(self.seed, f"replace {side}", epoch)
        return bank.renewed(new, self.config.replace_share, rng, self.world)

    def _cluster(
        self, bank: Bank, wanted: int, side: str, epoch: int, after_step: Callable[[], object]
    ) -> KMeans:
        clusters = min(wanted, bank.total) if self.config.k == "auto" else wanted
        if bank.total == 0:
            raise ValueError(
                f"the {side} bank has no tokens: change --clustering.keep_mass, the share of the attention "
                "that is foreground, raise --clustering.sample_share, or train on more images"
            )
        if not 1 <= clusters <= bank.total:
            raise ValueError(
                f"the {side} bank has {bank.total} tokens for {wanted} clusters: lower "
                f"--clustering.{side}_clusters or use --clustering.k auto, raise --clustering.sample_share, "
                "or train on more images"
            )
        rng = generator(self.seed, f"k-means {side}", epoch)
        first = torch.from_numpy(rng.choice(bank.total, size=clusters, replace=False))

        def reduce(totals: Tensor) -> Tensor:  # called once before the first step, then once per step
            after_step()
            return self.world.all_reduce(totals)

        start = bank.at(first.to(bank.rows.device), self.world)
        try:
            return kmeans(bank.rows, clusters, iterations=self.config.iterations, init=start, reduce=reduce)
        except NotFiniteError as error:
            raise FloatingPointError(
                f"{error.rows} of the {bank.total} {side} tokens before epoch {epoch + 1} are not finite: "
                "try --precision fp32, and check the images and the backbone weights"
            ) from error

    def follow(self, tokens: Tensor, foreground: Tensor, assignment: Tensor, *, hold: Tensor) -> None:
        """Move the centroids towards a batch's momentum tokens, in the online mode only (HCL, section 11).

        Args:
            tokens: (M, C) momentum tokens of this rank.
            foreground: (M,) bool.
            assignment: (M,) index of each token's centroid in its own bank.
            hold: 0-d bool; if true, nothing moves.
        """
        if self.config.mode != "online":
            return
        assert self.centroids is not None
        assert self._idle is not None
        moved = [
            momentum_centroid_update(
                centroids,
                tokens,
                assignment.where(mine, -1),
                self.config.centroid_momentum,
                idle=idle,
                patience=self.config.reseed_after,
                reduce=self.world.all_reduce,
                gather=self.world.all_gather,
            )
            for centroids, idle, mine in zip(
                self.centroids, self._idle, (foreground, ~foreground), strict=True
            )
        ]
        foreground_c, background_c = (
            torch.where(hold, old, update.centroids)
            for old, update in zip(self.centroids, moved, strict=True)
        )
        foreground_i, background_i = (
            torch.where(hold, old, update.idle) for old, update in zip(self._idle, moved, strict=True)
        )
        self.centroids = Centroids(foreground_c, background_c)
        self._idle = (foreground_i, background_i)

    def state_dict(self) -> dict[str, Tensor | None]:
        """Return what a later process needs besides the banks: ``centroids_`` and ``idle_`` of each side."""
        return _by_side("centroids", self.centroids) | _by_side("idle", self._idle)

    def load_state_dict(self, state: dict[str, Any], banks: Banks | None, device: torch.device) -> None:
        """Restore a state from `state_dict` on ``device``, and the banks, which are there already."""

        def pair(name: str) -> tuple[Tensor, Tensor] | None:
            foreground, background = (state[f"{name}_{side}"] for side in SIDES)
            return None if foreground is None else (foreground.to(device), background.to(device))

        self.banks = banks
        self._idle = pair("idle")
        centroids = pair("centroids")
        self.centroids = centroids and Centroids(*centroids)


def _by_side(name: str, pair: tuple[Tensor, Tensor] | None) -> dict[str, Tensor | None]:
    foreground, background = pair or (None, None)
    return {f"{name}_{SIDES[0]}": foreground, f"{name}_{SIDES[1]}": background}


def _never_idle(centroids: Tensor) -> Tensor:
    return torch.zeros(len(centroids), dtype=torch.int64, device=centroids.device)
