"""The dense CRF by the library pydensecrf, one image a task in worker processes.

The library filters by a permutohedral lattice, which approximates the kernels. Workers are started when they
are first needed, as fresh interpreters (a fork would copy the locks of other threads), and kept. They end
with the program, however it ends.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from kernels.crf.energy import Pairwise, unary_energy
from kernels.crf.pending import Pending, Ready
from kernels.processors import usable_processors

Shape = tuple[int, ...]

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def submit(
    probabilities: Tensor, images: Tensor, iterations: int, pairwise: Pairwise, workers: int | None
) -> Pending:
    """Marginals by the library, of all images side by side; with one worker in this process, at once."""
    if find_spec("pydensecrf") is None:
        raise ModuleNotFoundError(
            "impl='pydensecrf' needs that library: pip install '.[evaluation]' in the project's folder "
            "(a C++ compiler builds it), or use another impl"
        )
    beliefs = probabilities.float().cpu().numpy()
    # Blue first, as the published program has it: the lattice does not treat its axes alike.
    pictures = images.cpu().permute(0, 2, 3, 1).flip(3).contiguous().numpy()
    workers = workers or usable_processors()
    if workers > 1:
        return InWorkers(workers, beliefs, pictures, iterations, pairwise, probabilities.device)
    marginals = np.empty(beliefs.shape, dtype=np.float32)
    for marginal, belief, picture in zip(marginals, beliefs, pictures, strict=True):
        marginal[:] = _marginals(belief, picture, iterations, pairwise)
    return Ready(torch.from_numpy(marginals).to(probabilities.device))


def _marginals(beliefs: np.ndarray, picture: np.ndarray, iterations: int, pairwise: Pairwise) -> np.ndarray:
    """One image: probabilities (C, H, W) float32 and picture (H, W, 3) uint8 to marginals (C, H, W)."""
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
    """Marginals by worker processes, which put them where the beliefs were in a file that all of them map.

    Sent through pipes they would cost a fifth of the work. A file in shared memory would not do: containers
    often have little of it. The file has no name any more when the marginals are returned; they keep it.
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
        self.file = tempfile.NamedTemporaryFile(prefix="dense-crf-")  # noqa: SIM115
        os.posix_fallocate(self.file.fileno(), 0, beliefs.nbytes)
        self.exchange = np.memmap(self.file.name, np.float32, "r+", shape=beliefs.shape)
        self.tasks: list[Future[None]] = []
        for index, (belief, picture) in enumerate(zip(beliefs, pictures, strict=True)):
            self.exchange[index] = belief
            place = (self.file.name, beliefs.shape, index)
            with self._deaths_told():
                self.tasks.append(_pool(workers).submit(_replace, *place, picture, iterations, pairwise))

    def result(self) -> Tensor:
        """The marginals, once all workers are done with them."""
        try:
            with self._deaths_told():
                for task in self.tasks:
                    task.result()
        finally:
            self.cancel()
        return torch.from_numpy(self.exchange).to(self.device)

    def cancel(self) -> None:
        """Leave the images undone that no worker has begun."""
        for task in self.tasks:
            task.cancel()
        self.file.close()

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


def _replace(
    path: str, shape: Shape, index: int, picture: np.ndarray, iterations: int, pairwise: Pairwise
) -> None:
    """Put one image's marginals where its probabilities were."""
    exchange = np.memmap(path, np.float32, "r+", shape=shape)
    exchange[index] = _marginals(exchange[index], picture, iterations, pairwise)


@lru_cache(maxsize=1)
def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the program, end with it, and take one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_after_parent, daemon=True).start()
    torch.set_num_threads(1)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep what an image frees: fresh pages for every image take a third of a worker's time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 2**30)
        mallopt(M_MMAP_THRESHOLD, 2**25)


def _exit_after_parent() -> None:
    """Exit where the program was killed and could not say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
