"""Sticky notes (paper III and figure 2): blocks of mask, averaged into a smooth one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tonewood.settings import NoteSettings

_CELL_HZ_PER_S = 31.25 / 0.010  # a cell of the paper's spectrogram: 16 kHz / 512, every 10 ms


@dataclass(frozen=True)
class StickyNotes:
    """So many notes, each with a place, a width, a height and a gain.

    Parameters
    ----------
    seconds, hz : Tensor [note]
        Centres.
    width_s, height_hz : Tensor [note]
        Extents.
    gain_db : Tensor [note]
    """

    seconds: Tensor
    hz: Tensor
    width_s: Tensor
    height_hz: Tensor
    gain_db: Tensor

    def profiles(
        self, row_hz: Tensor, frame_s: Tensor, smooth_hz: float = 0.0, smooth_s: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Share of each note in each row [note, row] and in each frame [note, frame].

        A note's mask is the outer product of its two profiles. Averaging a block of width w over
        a span s turns its edges into ramps of length s; span 0 leaves the block itself.
        """
        return (
            _block_coverage(row_hz, self.hz, self.height_hz, smooth_hz),
            _block_coverage(frame_s, self.seconds, self.width_s, smooth_s),
        )


def scatter_sticky_notes(
    settings: NoteSettings, duration_s: float, top_hz: float, generator: torch.Generator
) -> StickyNotes:
    """Scatter notes over a recording at random, with random gains.

    A rectangular note has the width and height of the settings; a square one has the same area
    and spans as many of the paper's frames as of its bins.
    """
    count = max(1, round(settings.per_second * duration_s))
    place = torch.rand(2, count, generator=generator)
    width = torch.full((count,), settings.width_ms / 1000)
    height = torch.full((count,), settings.height_hz)
    if settings.shape == "square":
        area = width * height
        width, height = (area / _CELL_HZ_PER_S).sqrt(), (area * _CELL_HZ_PER_S).sqrt()
    gain = torch.randn(count, generator=generator) * settings.gain_db
    return StickyNotes(place[0] * duration_s, place[1] * top_hz, width, height, gain)


def render_sticky_notes(gain_db: Tensor, row_profile: Tensor, frame_profile: Tensor) -> Tensor:
    """Mask [row, frame] in dB of notes with these gains [note] and profiles.

    Where notes overlap, their gains are averaged; where a note's smoothed edge stands alone, it
    fades to 0 dB.
    """
    covered = row_profile.T @ frame_profile
    return ((row_profile * gain_db[:, None]).T @ frame_profile) / covered.clamp_min(1.0)


def _block_coverage(grid: Tensor, centre: Tensor, extent: Tensor, span: float) -> Tensor:
    """Share [note, point] of a window of length `span` around each point that the block covers."""
    distance = (grid[None, :] - centre[:, None]).abs()
    half = extent[:, None] / 2
    if span == 0:
        return (distance <= half).to(grid.dtype)
    covered = torch.minimum(half, distance + span / 2) - torch.maximum(-half, distance - span / 2)
    return (covered / span).clamp(0, 1)
