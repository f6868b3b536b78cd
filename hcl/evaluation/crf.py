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
        iterations: number of mean-field iterations.
        gaussian_sxy: standard deviation of the smoothness kernel, in pixels.
        gaussian_compat: weight of the smoothness kernel.
        bilateral_sxy: standard deviation of the appearance kernel in position, in pixels.
        bilateral_srgb: standard deviation of the appearance kernel in colour, on the scale of 0 to 255.
        bilateral_compat: weight of the appearance kernel.
        impl: implementation: auto is triton on a CUDA GPU and pydensecrf in worker processes elsewhere; torch
            is exact, for small images.
        workers: number of pydensecrf worker processes of each rank; by default one per processor, divided
            among the ranks of a machine. The number does not change the result.
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
        """Describe the settings in words, including the implementation for a device."""
        chosen = implementation(self.impl, torch.empty(0, device=device))
        return (
            f"dense CRF by {chosen}, {self.iterations} iterations, smoothness sxy {self.gaussian_sxy:g} "
            f"compat {self.gaussian_compat:g}, appearance sxy {self.bilateral_sxy:g} "
            f"srgb {self.bilateral_srgb:g} compat {self.bilateral_compat:g}"
        )

    @property
    def processes(self) -> int:
        """Number of worker processes of this rank; by default, its share of the processors."""
        return self.workers or max(usable_processors() // local_ranks(), 1)

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `kernels.crf.dense_crf`."""
        return asdict(self) | {"workers": self.processes}


def refine(logits: Tensor, pictures: Tensor, config: CRFConfig) -> Tensor:
    """Refine logits (B, classes, H, W) by pictures (B, 3, H, W) uint8 RGB to marginals (B, classes, H, W)."""
    return dense_crf(logits.softmax(dim=1), pictures, **config.arguments())


def require_crf(config: CRFConfig, size: int, device: torch.device) -> None:
    """Refine an empty image of size x size pixels, so that a CRF that cannot run fails before any work.

    Raises:
        ValueError, ModuleNotFoundError: as `kernels.crf.dense_crf`.
    """
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
    refine(image[:, :2].float(), image, replace(config, iterations=1))


def refine_batches(
    batches: Iterable[tuple[T, Tensor, Tensor]], config: CRFConfig
) -> Iterator[tuple[T, Tensor]]:
    """`refine` batch after batch, while the next batches are prepared.

    Behind the batch that the workers process, further batches are queued until these hold an image for every
    worker. So no worker idles at the end of a batch, and memory is bounded.

    Args:
        batches: tuples of a value to return with the marginals, logits, and pictures; read ahead as far as
            the queue needs.
        config: settings of the CRF.

    Yields:
        The value of each batch and its marginals, in order.
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
