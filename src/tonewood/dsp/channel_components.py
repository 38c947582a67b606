"""Components of a recording that have masks of their own: mid and side, or each channel."""

import numpy as np

from tonewood.setting_types import ChannelLink
from tonewood.utils.arrays import Samples


def count_components(channels: int, link: ChannelLink) -> int:
    """Return the number of masks that a recording needs; one if its channels are linked, or if it is mono."""
    if link == "all" or channels == 1:
        return 1
    assert link == "off" or channels == 2
    return channels


def split_components(samples: Samples, link: ChannelLink) -> Samples:
    """Return the components [component, sample] of unlinked channels: mid and side, or the channels."""
    if link == "off":
        return samples
    left, right = samples
    return np.stack([0.5 * (left + right), 0.5 * (left - right)])


def join_components(parts: Samples, link: ChannelLink) -> Samples:
    """Undo `split_components`: to the last bit but one of a float."""
    if link == "off":
        return parts
    mid, side = parts
    return np.stack([mid + side, mid - side])
