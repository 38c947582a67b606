"""What an alignment goes by: pitches and attacks, whatever the instrument's colour.

Every 10 ms, from a recording at 16 kHz. Pitches are the fine structure of `signal.expand`, whose
envelope is taken off; attacks are rises of level in a dozen bands, loud or soft, weighed alike.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from torch import Tensor

from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.signal.bands import band_levels, frame_levels
from tonewood.signal.features import fine_structure

FloatArray = NDArray[np.floating[Any]]

SPECTRUM = SpectrumSettings()
HOP_S = SPECTRUM.hop / SPECTRUM.rate
_BANDS = BandSettings()
_AUDIBLE_DB, _LEVEL_FLOOR_DB = 45.0, 60.0
_ATTACK_BANDS = 12  # bands of an attack, four mel bands each
_RISE_FRAMES = 3  # frames over which a rise is measured: the analysis window
_ATTACK_CONTEXT_FRAMES = 100  # frames around an attack whose strongest it is measured by: a second
_MIN_ATTACK_DB = 6.0  # a rise by less is no attack, however quiet its surroundings
_BLOCK_FRAMES = 6_000  # frames at once: a minute


class AlignmentFeatures(NamedTuple):
    """One recording, frame by frame.

    Parameters
    ----------
    fine : float32 array [frame, pitch]
        Fine structure on quarter tones from 55 Hz, of mean 0 and length 1.
    chroma : float32 array [frame, 12]
        Its peaks by semitone of the octave, in dB above the envelope.
    attack : float32 array [frame, band]
        Rises of level, those of a second's strongest together of length 1.
    audible : bool array [frame]
        Within 45 dB of the loudest.
    """

    fine: NDArray[np.float32]
    chroma: NDArray[np.float32]
    attack: NDArray[np.float32]
    audible: NDArray[np.bool_]

    def select(self, span: slice) -> "AlignmentFeatures":
        """Only the frames of a span."""
        return AlignmentFeatures(self.fine[span], self.chroma[span], self.attack[span], self.audible[span])


def extract_alignment_features(wave: Tensor) -> AlignmentFeatures:
    """Cues of a mono waveform [sample] at 16 kHz; memory beyond them does not grow with length."""
    rows = _mel_levels(wave)
    fine = fine_structure(wave, SPECTRUM, rows.shape[1]).numpy()
    level = frame_levels(torch.from_numpy(rows)).numpy()
    centred = fine - fine.mean(axis=0)
    length = np.maximum(np.linalg.norm(centred, axis=0), 1e-6)
    return AlignmentFeatures(
        np.ascontiguousarray((centred / length).T),
        _fold_to_chroma(fine),
        _attack_strength(rows, float(level.max())),
        level > level.max() - _AUDIBLE_DB,
    )


def _mel_levels(wave: Tensor) -> NDArray[np.float32]:
    """Mel levels [row, frame] in dB, a minute at a time; blocks overlap by more than a window."""
    hop, margin = SPECTRUM.hop, 4
    total = wave.shape[0] // hop + 1
    parts = []
    for first in range(0, total, _BLOCK_FRAMES):
        last = min(total, first + _BLOCK_FRAMES)
        lead = max(0, first - margin)
        end = wave.shape[0] if last == total else (last + margin) * hop
        part = band_levels(wave[lead * hop : end], SPECTRUM.rate, _BANDS, SPECTRUM)
        parts.append(part[:, first - lead : last - lead].numpy())
    return np.concatenate(parts, axis=1)


def _fold_to_chroma(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """Peaks of the fine structure [pitch, frame] folded to semitones; [frame, 12].

    Pitches are quarter tones: every other one lies between two semitones and counts half for each.
    """
    peaks = fine.clip(0)
    on, between = peaks[0::2], peaks[1::2] / 2
    semitones = on + between
    semitones[1:] += between[:-1]
    return np.ascontiguousarray(semitones.reshape(-1, 12, fine.shape[1]).sum(axis=0).T)


def _attack_strength(rows: NDArray[np.float32], loudest: float) -> NDArray[np.float32]:
    """Rises of the level of wide bands, relative to the strongest within half a second."""
    heard = np.maximum(rows, loudest - _LEVEL_FLOOR_DB)
    wide = heard.reshape(_ATTACK_BANDS, -1, heard.shape[1]).mean(axis=1)
    wide = uniform_filter1d(wide, _RISE_FRAMES, axis=1)
    before = np.pad(wide, ((0, 0), (_RISE_FRAMES, 0)), mode="edge")[:, : wide.shape[1]]
    rise = (wide - before).clip(0)
    # A rise is measured at its end; it stands for the middle.
    rise = np.pad(rise[:, _RISE_FRAMES // 2 :], ((0, 0), (0, _RISE_FRAMES // 2)))[:, : wide.shape[1]]
    strongest = maximum_filter1d(np.linalg.norm(rise, axis=0), _ATTACK_CONTEXT_FRAMES)
    return np.ascontiguousarray((rise / np.maximum(strongest, _MIN_ATTACK_DB)).T.astype(np.float32))
