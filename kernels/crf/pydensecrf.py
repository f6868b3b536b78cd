"""The dense CRF by the library pydensecrf, one image per task in worker processes.

The library filters by a permutohedral lattice, which approximates the kernels. Workers are started when they
are first needed, as fresh interpreters (a fork would copy the locks of other threads), and are kept. They end
with the program, however it ends.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from kernels.crf.energy import Pairwise, unary_energy
from kernels.crf.exchange import Exchange, Place
from kernels.crf.pending import Pending, Ready
from kernels.processors import usable_processors

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def submit(
    probabilities: Tensor, images: Tensor, iterations: int, pairwise: Pairwise, workers: int | None
) -> Pending:
    """Compute marginals with the library, images in parallel; with one worker, at once in this process."""
    if find_spec("pydensecrf") is None:
        raise ModuleNotFoundError(
            "impl='pydensecrf' needs that library: pip install '.[evaluation]' in the project's folder "
            "(a C++ compiler builds it), or use another impl"
        )
    beliefs = probabilities.float().cpu().numpy()
    # Blue first, as in the published program: the lattice does not treat its axes alike.
    pictures = images.cpu().permute(0, 2, 3, 1).flip(3).contiguous().numpy()
    workers = workers or usable_processors()
    if workers > 1:
        return InWorkers(workers, beliefs, pictures, iterations, pairwise, probabilities.device)
    marginals = np.empty(beliefs.shape, dtype=np.float32)
    for marginal, belief, picture in zip(marginals, beliefs, pictures, strict=True):
        marginal[:] = _marginals(belief, picture, iterations, pairwise)
    return Ready(torch.from_numpy(marginals).to(probabilities.device))


def _marginals(beliefs: np.ndarray, picture: np.ndarray, iterations: int, pairwise: Pairwise) -> np.ndarray:
    """Compute marginals (C, H, W) from probabilities (C, H, W) float32 and a picture (H, W, 3) uint8."""
    from pydensecrf.densecrf import DenseCRF2D

    classes, height, width = beliefs.shape
    unary = unary_energy(torch.from_numpy(np.ascontiguousarray(beliefs)))
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(unary.flatten(1).numpy())
    crf.addPairwiseGaussian(sxy=pairwise.gaussian_sxy, compat=pairwise.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=pairwise.bilateral_sxy,
        srgb=pairwise.bilateral_srgb,
        rgbim=picture,
        compat=pairwise.bilateral_compat,
    )
    return np.array(crf.inference(iterations), dtype=np.float32).reshape(beliefs.shape)


class InWorkers:
    """Marginals by worker processes, which overwrite the beliefs with them in a file that all of them map.

    Sending the arrays through pipes would cost a tenth of the work.
    """

    def __init__(
        self,
        workers: int,
        beliefs: np.ndarray,
        pictures: np.ndarray,
        iterations: int,
        pairwise: Pairwise,
        device: torch.device,
    ) -> None:
        self.workers, self.device = workers, device
        pool = _pool(workers)
        self.exchange, self.place = pool.exchange, pool.exchange.put(beliefs)
        self.marginals: Tensor | None = None
        self.tasks: list[Future[None]] = []
        for index, picture in enumerate(pictures):
            with self._deaths_told():
                self.tasks.append(pool.submit(_replace, self.place, index, picture, iterations, pairwise))

    def result(self) -> Tensor:
        """Wait for all workers and return the marginals, which are kept from then on."""
        if self.marginals is None:
            try:
                self.marginals = self._collect()
            finally:
                self.cancel()
        return self.marginals

    def _collect(self) -> Tensor:
        with self._deaths_told():
            for task in self.tasks:
                task.result()
        if self.place not in self.exchange.taken:
            raise CancelledError("these marginals were cancelled, and others may lie in their place")
        return torch.from_numpy(self.exchange.at(self.place)).to(self.device, copy=True)

    def cancel(self) -> None:
        """Cancel the images that no worker has begun, and wait for the others."""
        wait([task for task in self.tasks if not task.cancel()])
        self.exchange.drop(self.place)

    @contextmanager
    def _deaths_told(self) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool as error:
            _pool.cache_clear()
            raise RuntimeError(
                f"one of {self.workers} pydensecrf workers died: for want of memory (try fewer), or since "
                "the script has no `if __name__ == '__main__':`"
            ) from error


class _Workers(ProcessPoolExecutor):
    """Processes and their exchange; each pool has its own, as workers of a broken pool may still write."""

    def __init__(self, workers: int) -> None:
        self.exchange = Exchange()
        context = multiprocessing.get_context("spawn")
        super().__init__(workers, context, initializer=_prepare_worker, initargs=(self.exchange,))


@lru_cache(maxsize=1)
def _pool(workers: int) -> _Workers:
    return _Workers(workers)


_inherited: list[Exchange] = []
"""In a worker process, the exchange that it was started with."""


def _replace(place: Place, index: int, picture: np.ndarray, iterations: int, pairwise: Pairwise) -> None:
    """Overwrite one image's probabilities with its marginals."""
    array = _inherited[0].at(place)
    array[index] = _marginals(array[index], picture, iterations, pairwise)


def _prepare_worker(exchange: Exchange) -> None:
    """Make a worker ignore Ctrl-C, end with the program, and use one core."""
    _inherited.append(exchange)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_after_parent, daemon=True).start()
    torch.set_num_threads(1)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory: fresh pages for every image take a third of a worker's time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 2**30)
        mallopt(M_MMAP_THRESHOLD, 2**25)


def _exit_after_parent() -> None:
    """Exit after the program, even if it was killed and could not end its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
