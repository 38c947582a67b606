"""Array types that signatures share, and the mean of channels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
"""Real numbers, in single or double precision."""

Samples = NDArray[np.float32]
"""Audio (channels, samples) or (samples,); full scale is ±1."""


def to_mono(samples: Samples) -> Samples:
    """Return the mean of the channels, (samples,), of (channels, samples)."""
    # Summed in double precision, so that the mean of equal channels is exactly one of them.
    mean: Samples = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean
