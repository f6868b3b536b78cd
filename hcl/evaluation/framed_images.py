"""The images of a data set as a protocol looks at them."""

import numpy as np

from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.protocol import ProtocolConfig
from pipelines.labelled_images import EvaluationImages


def framed_images(
    dataset: Dataset, config: ProtocolConfig, indices: np.ndarray, world: World
) -> EvaluationImages:
    """Some images and their labels in the configuration's frame and batches, on this rank's device.

    Args:
        dataset: of the images.
        config: of the protocol.
        indices: (n,) of the images, in the order in which they are wanted.
        world: whose device they go to.
    """
    return EvaluationImages(
        dataset,
        size=config.frame.size,
        mode=config.frame.mode,
        batch_size=config.batch_size,
        device=world.device,
        threads=config.threads,
        indices=indices,
    )
