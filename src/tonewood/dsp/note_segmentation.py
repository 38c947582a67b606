"""What musicians call the moments of a recording: attack, steady, vibrato, transition, noise.

The pitch is found by pYIN (Mauch & Dixon 2014) as librosa has it; what follows from it is told by
plain rules, whose limits stand below.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, uniform_filter1d

from tonewood.errors import MissingExtraError
from tonewood.utils.arrays import FloatArray

SEGMENT_NAMES = ("attack", "steady", "vibrato", "transition", "noise-like")
QUIET_LABEL = -1
"""Label of moments that nobody hears."""

PITCH_SAMPLE_RATE = 16_000  # Hz; what pitch is looked for at
MIN_PITCH_HZ, MAX_PITCH_HZ = (
    55.0,
    1_760.0,
)  # Hz, A1 to A6: from below a cello's lowest to what a violin plays in solos
_WINDOW, _HOP = 1_024, 320  # 64 ms: three periods of 55 Hz; 20 ms
_STEP_SECONDS = _HOP / PITCH_SAMPLE_RATE
_BLOCK_SECONDS = 30.0  # of the search for pitch, whose memory grows with length

_AUDIBLE_DB = 45.0  # below the loudest moment
_ATTACK_SECONDS = (0.03, 0.12)  # before and after an onset: the scorer hears 85 ms to either side
_ONSET_RISE_DB, _ONSET_RISE_SECONDS = 9.0, 0.06  # that makes an onset
_NOTE_CHANGE_SEMITONES, _MIN_NOTE_SECONDS = (
    0.7,
    0.16,
)  # that makes another note; shorter ones are none
_TRANSITION_SECONDS = 0.08  # to either side of a change of note
_VIBRATO_HZ = (4.0, 8.0)
_VIBRATO_MIN_CENTS, _VIBRATO_MIN_SHARE = 8.0, 0.5  # rms swing; share of the pitch's movement
_VIBRATO_WINDOW_SECONDS = 0.5  # over which it is looked for: two swings at 4 Hz
_MAX_FLATNESS_DB = -10.0  # of the spectrum, geometric to arithmetic mean; white noise has -2.5


class NoteSegments(NamedTuple):
    """A recording's moments, on the analysis' frames.

    Parameters
    ----------
    labels : int8 array (frame,)
        Index into `PARTS`, or `QUIET_LABEL`.
    hz : float64 array (frame,)
        Pitch, NaN where there is none.
    """

    labels: NDArray[np.int8]
    hz: FloatArray


def require_pitch_tracker() -> None:
    """Raise MissingExtraError now rather than after the work if no pitch can be found."""
    try:
        import librosa  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "naming the parts of notes needs librosa: pip install '.[pitch]', "
            "or leave them out with --no-parts"
        ) from None


def segment_notes(wave: NDArray[np.float32], frames: int, frames_per_second: float) -> NoteSegments:
    """Parts of a mono waveform [sample] at 16 kHz.

    A moment gets the first name that fits: quiet, attack, transition, noise-like, vibrato, steady.

    Parameters
    ----------
    frames : int
        How many frames are to be named; frame k stands at k / `frames_per_second`.

    Raises
    ------
    MissingExtraError
        librosa is not installed.
    """
    require_pitch_tracker()
    levels = _step_levels_db(wave)
    hz = track_pitch(wave)[: len(levels)]
    quiet = levels < levels.max() - _AUDIBLE_DB
    hz[quiet] = np.nan  # faint hum has a pitch, and nobody plays it
    voiced = np.isfinite(hz)
    semitones = 12 * np.log2(hz / MIN_PITCH_HZ)
    begun = detect_onsets(levels)
    attack = _dilate_steps(begun, *_ATTACK_SECONDS)
    # A note that begins anew is an attack, whatever was played before it.
    changes = detect_note_changes(semitones) & ~_dilate_steps(begun, _TRANSITION_SECONDS, _TRANSITION_SECONDS)
    transition = _dilate_steps(changes, _TRANSITION_SECONDS, _TRANSITION_SECONDS)
    noisy = ~voiced | (_spectral_flatness_db(wave)[: len(levels)] > _MAX_FLATNESS_DB)
    labels = np.full(len(levels), SEGMENT_NAMES.index("steady"), dtype=np.int8)
    for name, where in (
        ("vibrato", detect_vibrato(semitones)),
        ("noise-like", noisy),
        ("transition", transition),
        ("attack", attack),
    ):
        labels[where] = SEGMENT_NAMES.index(name)
    labels[quiet] = QUIET_LABEL
    nearest = np.rint(np.arange(frames) / frames_per_second / _STEP_SECONDS).astype(np.int64)
    nearest = nearest.clip(0, len(levels) - 1)
    return NoteSegments(labels[nearest], hz[nearest])


def track_pitch(wave: NDArray[np.float32]) -> FloatArray:
    """Pitch [step] in Hz every 20 ms, NaN where there is none."""
    import librosa

    found = []
    block = round(_BLOCK_SECONDS / _STEP_SECONDS) * _HOP
    margin = 25 * _HOP
    for start in range(0, len(wave), block):
        begin = max(0, start - margin)
        piece = wave[begin : start + block + margin]
        hz, voiced, _ = librosa.pyin(
            np.pad(piece, (0, max(0, _WINDOW - len(piece)))),
            fmin=MIN_PITCH_HZ,
            fmax=MAX_PITCH_HZ,
            sr=PITCH_SAMPLE_RATE,
            frame_length=_WINDOW,
            hop_length=_HOP,
        )
        hz = np.where(voiced, hz, np.nan)[(start - begin) // _HOP :]
        last = start + block >= len(wave)
        found.append(hz if last else hz[: block // _HOP])
    return np.concatenate(found)[: len(wave) // _HOP + 1]


def detect_onsets(levels_db: FloatArray) -> NDArray[np.bool_]:
    """Steps at which the level [step] in dB rises, each rise once: at its steepest."""
    reach = round(_ONSET_RISE_SECONDS / _STEP_SECONDS)
    held = np.pad(levels_db, (reach, 0), mode="constant", constant_values=levels_db.min())
    rise = levels_db - held[:-reach]
    steep = np.diff(levels_db, prepend=levels_db.min())
    found = np.zeros(len(levels_db), dtype=bool)
    for first, end in _true_runs(rise > _ONSET_RISE_DB):
        found[first + int(np.argmax(steep[first:end]))] = True
    return found


def detect_note_changes(semitones: FloatArray) -> NDArray[np.bool_]:
    """Steps at which one note becomes another, of a pitch [step] that is NaN where there is none.

    Between two notes the pitch may be lost for as long as a transition lasts, not longer: then
    the second note begins anew.
    """
    found = np.zeros(len(semitones), dtype=bool)
    voiced = np.isfinite(semitones)
    # The median over a swing of vibrato stays on the note, and jumps when the note does.
    reach = 2 * round(_MIN_NOTE_SECONDS / _STEP_SECONDS / 2) + 1
    gap = 2 * round(_TRANSITION_SECONDS / _STEP_SECONDS)
    steps = np.flatnonzero(voiced)
    if len(steps) < 2:
        return found
    note = median_filter(semitones[steps], reach, mode="nearest")
    for before, after in zip(range(len(steps)), range(2, len(steps)), strict=False):
        moved = abs(note[after] - note[before]) > _NOTE_CHANGE_SEMITONES
        if moved and steps[after] - steps[before] <= gap:
            found[(steps[before] + steps[after]) // 2] = True
    return found


def detect_vibrato(semitones: FloatArray) -> NDArray[np.bool_]:
    """Steps [step] at which the pitch swings 4 to 8 times a second.

    Looked for in every half second of unbroken pitch, as a share of the pitch's power beside a
    straight line: a glide has none.
    """
    found = np.zeros(len(semitones), dtype=bool)
    size = round(_VIBRATO_WINDOW_SECONDS / _STEP_SECONDS)
    time = np.arange(size) - (size - 1) / 2
    taper = np.hanning(size + 2)[1:-1]
    hz = np.fft.rfftfreq(8 * size, _STEP_SECONDS)
    band = (hz >= _VIBRATO_HZ[0]) & (hz <= _VIBRATO_HZ[1])
    for first, end in _true_runs(np.isfinite(semitones)):
        for start in range(first, end - size + 1):
            piece = 100 * semitones[start : start + size]
            piece = piece - piece.mean()
            piece -= time * (piece @ time) / (time @ time)
            power = np.abs(np.fft.rfft(piece * taper, 8 * size)) ** 2
            share = power[band].sum() / (power.sum() + 1e-12)
            if share > _VIBRATO_MIN_SHARE and np.sqrt(share) * piece.std() > _VIBRATO_MIN_CENTS:
                middle = start + size // 2
                found[middle - size // 4 : middle + size // 4 + 1] = True
    return found


def _step_levels_db(wave: NDArray[np.float32]) -> FloatArray:
    """Level [step] in dB over 40 ms around every step."""
    power = uniform_filter1d(wave.astype(np.float64) ** 2, 2 * _HOP, mode="constant")[::_HOP]
    levels: FloatArray = 10 * np.log10(np.maximum(power, 1e-14))
    return levels


def _spectral_flatness_db(wave: NDArray[np.float32]) -> FloatArray:
    """Geometric to arithmetic mean of the power spectrum [step], dB."""
    padded = np.pad(wave.astype(np.float64), _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    flat = []
    for block in np.array_split(frames, max(1, len(frames) // 4_096)):
        power = np.abs(np.fft.rfft(block * np.hanning(_WINDOW))[:, 4:]) ** 2 + 1e-14
        flat.append(10 * np.log10(power).mean(axis=1) - 10 * np.log10(power.mean(axis=1)))
    return np.concatenate(flat)


def _dilate_steps(steps: NDArray[np.bool_], seconds_before: float, seconds_after: float) -> NDArray[np.bool_]:
    """Steps that lie so near to one of `total_steps`."""
    before, after = round(seconds_before / _STEP_SECONDS), round(seconds_after / _STEP_SECONDS)
    found = np.zeros_like(steps)
    for step in np.flatnonzero(steps):
        found[max(0, step - before) : step + after + 1] = True
    return found


def _true_runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First step and end of every unbroken run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
