"""Which images each rank sees in each step; a step has the same images for any number of ranks."""

from dataclasses import dataclass

import numpy as np

from hcl.data.samples import spread_out
from hcl.distributed import World
from hcl.randomness import generator


@dataclass(frozen=True)
class Batches:
    """The division of a data set into global batches, micro-batches and ranks.

    Args:
        images: images in the data set.
        batch_size: images in one optimiser step, over all ranks and micro-batches.
        accumulation: micro-batches per step.
        seed: seed of the images' order.

    Raises:
        ValueError: the batch is larger than the data set, or does not divide evenly among ranks and
            micro-batches.
    """

    images: int
    batch_size: int
    accumulation: int
    seed: int
    world: World

    def __post_init__(self) -> None:
        require_images(self.images, self.batch_size)
        require_division(self.batch_size, self.accumulation, self.world)

    @property
    def micro_batch_size(self) -> int:
        """Images in one forward pass of one rank."""
        return self.batch_size // (self.world.size * self.accumulation)

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in the data set; left-over images may be used in another epoch."""
        return self.images // self.batch_size

    def training(self, epoch: int, first_step: int = 0) -> list[np.ndarray]:
        """This rank's image indices, an array per micro-batch, from ``first_step`` to the epoch's end."""
        steps = self._order(epoch)[: self.steps_per_epoch * self.batch_size].reshape(
            self.steps_per_epoch, self.accumulation, self.world.size, self.micro_batch_size
        )
        return list(steps[first_step:, :, self.world.rank].reshape(-1, self.micro_batch_size))

    def step(self, epoch: int, number: int) -> np.ndarray:
        """The image indices of one step on all ranks, ``number`` counted from 0 in the epoch."""
        return self._order(epoch)[number * self.batch_size :][: self.batch_size]

    def left_over(self, epoch: int) -> list[np.ndarray]:
        """This rank's share of the images in no batch of the epoch; the last array may be shorter."""
        return self._share(self._order(epoch)[self.steps_per_epoch * self.batch_size :])

    def spread_out(self, most: int) -> list[np.ndarray]:
        """This rank's contiguous share of at most ``most`` images, spread evenly over the data set."""
        return self._share(spread_out(self.images, most))

    def _order(self, epoch: int) -> np.ndarray:
        return generator(self.seed, "order", epoch).permutation(self.images)

    def _share(self, images: np.ndarray) -> list[np.ndarray]:
        share = images[self.world.slice(len(images))]
        return [share[i : i + self.micro_batch_size] for i in range(0, len(share), self.micro_batch_size)]


def require_images(images: int, batch_size: int) -> None:
    """Refuse an empty batch, or one of more images than there are.

    Raises:
        ValueError: the batch is empty or too large.
    """
    if not 1 <= batch_size <= images:
        raise ValueError(
            f"batch_size is {batch_size}, but the training split has {images} images: "
            f"choose a batch_size between 1 and {images}"
        )


def require_division(batch_size: int, accumulation: int, world: World) -> None:
    """Refuse a batch that does not divide evenly among ranks and micro-batches.

    Raises:
        ValueError: the batch does not divide evenly.
    """
    if batch_size % (world.size * accumulation):
        raise ValueError(
            f"batch_size {batch_size} is not divisible by {world.size} ranks x {accumulation} micro-batches: "
            f"choose a multiple of {world.size * accumulation}"
        )
