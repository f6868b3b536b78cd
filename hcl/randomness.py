"""Random numbers as a pure function of what they are for.

Every draw of a run is keyed by the run's seed, a purpose and counters (epoch, image, ...), never by what was
drawn before. So a draw depends neither on the number of ranks nor on where a run was interrupted, and a
checkpoint needs no random state.
"""

import zlib

import numpy as np


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """Return a separate generator for one purpose.

    Args:
        seed: the run's seed, at least 0.
        purpose: what the numbers are for; different purposes give independent streams.
        counters: epoch, image index, and the like, each at least 0.
    """
    return np.random.default_rng((seed, zlib.crc32(purpose.encode()), *counters))
