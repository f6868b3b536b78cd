"""The images of a data set, resized and cropped for a protocol."""

import numpy as np

from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.protocol import ProtocolConfig
from pipelines.labelled_images import EvaluationImages


def framed_images(
    dataset: Dataset, config: ProtocolConfig, indices: np.ndarray, world: World
) -> EvaluationImages:
    """Load images and their labels in the configuration's frame and batch size, on this rank's device.

    Args:
        dataset: data set of the images.
        config: settings of the protocol.
        indices: (n,) indices of the images, in the order in which to load them.
        world: the ranks; images go to this rank's device.
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
