"""Array types that signatures share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
"""Real numbers, in single or double precision."""

Samples = NDArray[np.float32]
"""Audio (channels, samples) or (samples,); full scale is ±1."""
