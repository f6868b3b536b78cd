"""Dense CRF on predicted probabilities, with the published settings (HCL, section 7)."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from hcl.bounds import require_above_zero, require_at_least
from hcl.distributed import local_ranks
from kernels.crf import Pending, Ready, dense_crf, implementation, submit_dense_crf
from kernels.processors import usable_processors

T = TypeVar("T")


@dataclass
class CRFConfig:
    """Settings of the dense CRF (Krähenbühl and Koltun, 2011); the defaults are the published ones.

    Args:
        iterations: of mean field.
        gaussian_sxy: standard deviation of the smoothness kernel, in pixels.
        gaussian_compat: its weight.
        bilateral_sxy: standard deviation of the appearance kernel in pixels.
        bilateral_srgb: and in colour, of 0 to 255.
        bilateral_compat: its weight.
        impl: auto is triton on a CUDA GPU and pydensecrf in worker processes elsewhere; torch is exact, for
            small images.
        workers: processes of pydensecrf of each rank, by default one for every processor, which ranks of one
            machine share; they change no result.
    """

    iterations: int = 10
    gaussian_sxy: float = 1.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 67.0
    bilateral_srgb: float = 3.0
    bilateral_compat: float = 4.0
    impl: Literal["auto", "torch", "triton", "pydensecrf"] = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        require_at_least(1, self, "workers")
        require_at_least(0, self, "iterations", "gaussian_compat", "bilateral_compat")
        require_above_zero(self, "gaussian_sxy", "bilateral_sxy", "bilateral_srgb")

    def described(self, device: torch.device) -> str:
        """The settings in words, with the implementation that computes on a device."""
        chosen = implementation(self.impl, torch.empty(0, device=device))
        return (
            f"dense CRF by {chosen}, {self.iterations} iterations, smoothness sxy {self.gaussian_sxy:g} "
            f"compat {self.gaussian_compat:g}, appearance sxy {self.bilateral_sxy:g} "
            f"srgb {self.bilateral_srgb:g} compat {self.bilateral_compat:g}"
        )

    @property
    def processes(self) -> int:
        """The workers of this rank, its share of the processors where none are asked for."""
        return self.workers or max(usable_processors() // local_ranks(), 1)

    def arguments(self) -> dict[str, Any]:
        """What `kernels.crf.dense_crf` is told."""
        return asdict(self) | {"workers": self.processes}


def refine(logits: Tensor, pictures: Tensor, config: CRFConfig) -> Tensor:
    """Logits (B, classes, H, W) and their pictures (B, 3, H, W) uint8 RGB to marginals (B, classes, H, W)."""
    return dense_crf(logits.softmax(dim=1), pictures, **config.arguments())


def require_crf(config: CRFConfig, size: int, device: torch.device) -> None:
    """Refine an empty image of size x size pixels: what a CRF lacks is told before there is work to lose.

    Raises:
        ValueError, ModuleNotFoundError: as `kernels.crf.dense_crf`.
    """
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
    refine(image[:, :2].float(), image, replace(config, iterations=1))


def refine_batches(
    batches: Iterable[tuple[T, Tensor, Tensor]], config: CRFConfig
) -> Iterator[tuple[T, Tensor]]:
    """`refine` of batch after batch, while the next ones are made.

    Behind a batch that workers are at lie others, until they hold an image for every worker: so workers wait
    neither for each other at the end of a batch nor for the next one, and memory is bounded.

    Args:
        batches: what the caller wants back beside the marginals, logits and pictures; drawn from as far ahead
            as is worth it.
        config: of the CRF.

    Yields:
        What came with the batch, and its marginals, in order.
    """
    waiting: deque[tuple[T, int, Pending]] = deque()
    try:
        for own, logits, pictures in batches:
            pending = submit_dense_crf(logits.softmax(dim=1), pictures, **config.arguments())
            waiting.append((own, len(pictures), pending))
            while waiting and (
                isinstance(waiting[0][2], Ready)
                or sum(images for _, images, _ in islice(waiting, 1, None)) >= config.processes
            ):
                yield _collected(waiting)
        while waiting:
            yield _collected(waiting)
    finally:
        for _, _, pending in waiting:
            pending.cancel()


def _collected(waiting: deque[tuple[T, int, Pending]]) -> tuple[T, Tensor]:
    own, _, pending = waiting.popleft()
    return own, pending.result()
