"""Segment a recording into attack, steady, vibrato, transition and noise-like parts of notes.

The pitch is tracked by pYIN (Mauch & Dixon 2014, by librosa). The segments follow from it and from
the level by fixed rules.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, uniform_filter1d

from tonewood.dsp.features import AUDIBLE_RANGE_DB
from tonewood.errors import MissingExtraError
from tonewood.utils.arrays import FloatArray, Samples

BoolArray = NDArray[np.bool_]

SEGMENT_NAMES = ("attack", "steady", "vibrato", "transition", "noise-like")
QUIET_LABEL = -1
"""Label of inaudible frames."""

PITCH_SAMPLE_RATE = 16_000  # Hz
MIN_PITCH_HZ, MAX_PITCH_HZ = 55.0, 1_760.0  # A1 to A6: a cello's lowest to a violin's solo register
_WINDOW, _HOP = 1_024, 320  # 64 ms, three periods of 55 Hz; 20 ms
_STEP_SECONDS = _HOP / PITCH_SAMPLE_RATE
_BLOCK_SECONDS = 30.0  # the memory of pYIN grows with length
_CONTEXT_STEPS = 25  # before and after a block: half a second

_ATTACK_SECONDS = (0.03, 0.12)  # before and after an onset: the scorer sees 85 ms on either side
_ONSET_RISE_DB, _ONSET_RISE_SECONDS = 9.0, 0.06
_NOTE_CHANGE_SEMITONES, _MIN_NOTE_SECONDS = 0.7, 0.16
_TRANSITION_SECONDS = 0.08  # on either side of a change of note
_VIBRATO_HZ = (4.0, 8.0)
_VIBRATO_MIN_CENTS, _VIBRATO_MIN_SHARE = 8.0, 0.5  # rms swing; share of the pitch's variance
_VIBRATO_WINDOW_SECONDS = 0.5  # two swings at 4 Hz
_MAX_FLATNESS_DB = -10.0  # geometric to arithmetic mean of the spectrum; white noise has -2.5


class NoteSegments(NamedTuple):
    """Segments and pitch on the frames of the analysis.

    Labels [frame] are indices into `SEGMENT_NAMES`, or `QUIET_LABEL`; the pitch [frame] is NaN where
    there is none.
    """

    labels: NDArray[np.int8]
    hz: FloatArray


def require_pitch_tracker() -> None:
    """Raise MissingExtraError before any work is done if librosa is not installed."""
    try:
        import librosa  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "naming the parts of notes needs librosa: pip install '.[pitch]', or use --no-parts"
        ) from None


def segment_notes(wave: Samples, frames: int, frames_per_second: float) -> NoteSegments:
    """Label the frames of a mono waveform [sample] at 16 kHz; MissingExtraError without librosa.

    Frame k has the time k / `frames_per_second`. It gets the first label that applies: quiet,
    attack, transition, noise-like, vibrato, steady.
    """
    require_pitch_tracker()
    levels = _step_levels_db(wave)
    hz = track_pitch(wave)[: len(levels)]
    quiet = levels < levels.max() - AUDIBLE_RANGE_DB
    hz[quiet] = np.nan  # faint hum has a pitch too, but is not a note
    semitones = 12 * np.log2(hz / MIN_PITCH_HZ)

    onsets = detect_onsets(levels)
    attack = _dilate_steps(onsets, *_ATTACK_SECONDS)
    # A note with an onset is an attack, whatever was played before it.
    near_onset = _dilate_steps(onsets, _TRANSITION_SECONDS, _TRANSITION_SECONDS)
    changes = detect_note_changes(semitones) & ~near_onset
    transition = _dilate_steps(changes, _TRANSITION_SECONDS, _TRANSITION_SECONDS)
    noisy = ~np.isfinite(hz) | (_spectral_flatness_db(wave)[: len(levels)] > _MAX_FLATNESS_DB)

    # Later labels overwrite earlier ones.
    labels = np.full(len(levels), SEGMENT_NAMES.index("steady"), dtype=np.int8)
    for name, steps in (
        ("vibrato", detect_vibrato(semitones)),
        ("noise-like", noisy),
        ("transition", transition),
        ("attack", attack),
    ):
        labels[steps] = SEGMENT_NAMES.index(name)
    labels[quiet] = QUIET_LABEL
    nearest = np.rint(np.arange(frames) / frames_per_second / _STEP_SECONDS).astype(np.int64)
    nearest = nearest.clip(0, len(levels) - 1)
    return NoteSegments(labels[nearest], hz[nearest])


def track_pitch(wave: Samples) -> FloatArray:
    """Return the pitch [step] in Hz every 20 ms, NaN where there is none."""
    import librosa

    blocks = []
    size = round(_BLOCK_SECONDS / _STEP_SECONDS) * _HOP
    margin = _CONTEXT_STEPS * _HOP
    for start in range(0, len(wave), size):
        begin = max(0, start - margin)
        block = wave[begin : start + size + margin]
        hz, voiced, _ = librosa.pyin(
            np.pad(block, (0, max(0, _WINDOW - len(block)))),
            fmin=MIN_PITCH_HZ,
            fmax=MAX_PITCH_HZ,
            sr=PITCH_SAMPLE_RATE,
            frame_length=_WINDOW,
            hop_length=_HOP,
        )
        hz = np.where(voiced, hz, np.nan)[(start - begin) // _HOP :]
        is_last = start + size >= len(wave)
        blocks.append(hz if is_last else hz[: size // _HOP])
    return np.concatenate(blocks)[: len(wave) // _HOP + 1]


def detect_onsets(levels_db: FloatArray) -> BoolArray:
    """Return a mask of the steps with an onset: the steepest of each rise of the level [step]."""
    length = round(_ONSET_RISE_SECONDS / _STEP_SECONDS)
    earlier = np.pad(levels_db, (length, 0), mode="constant", constant_values=levels_db.min())[:-length]
    slope = np.diff(levels_db, prepend=levels_db.min())
    onsets = np.zeros(len(levels_db), dtype=bool)
    for first, end in _true_runs(levels_db - earlier > _ONSET_RISE_DB):
        onsets[first + int(np.argmax(slope[first:end]))] = True
    return onsets


def detect_note_changes(semitones: FloatArray) -> BoolArray:
    """Return a mask of the steps at which the pitch [step], NaN where unvoiced, changes note.

    Between two notes the pitch may be lost for the length of a transition. After a longer gap the
    second note is an attack.
    """
    changes = np.zeros(len(semitones), dtype=bool)
    # The median over a swing of vibrato stays on the note, and jumps when the note does.
    width = 2 * round(_MIN_NOTE_SECONDS / _STEP_SECONDS / 2) + 1
    max_gap = 2 * round(_TRANSITION_SECONDS / _STEP_SECONDS)
    steps = np.flatnonzero(np.isfinite(semitones))
    if len(steps) < 2:
        return changes
    note = median_filter(semitones[steps], width, mode="nearest")
    for before, after in zip(range(len(steps)), range(2, len(steps)), strict=False):
        is_change = abs(note[after] - note[before]) > _NOTE_CHANGE_SEMITONES
        if is_change and steps[after] - steps[before] <= max_gap:
            changes[(steps[before] + steps[after]) // 2] = True
    return changes


def detect_vibrato(semitones: FloatArray) -> BoolArray:
    """Return a mask of the steps at which the pitch [step] swings 4 to 8 times a second.

    Each half second of unbroken pitch is compared with a straight line, so that a glide does not
    count as a swing.
    """
    vibrato = np.zeros(len(semitones), dtype=bool)
    size = round(_VIBRATO_WINDOW_SECONDS / _STEP_SECONDS)
    time = np.arange(size) - (size - 1) / 2
    taper = np.hanning(size + 2)[1:-1]
    hz = np.fft.rfftfreq(8 * size, _STEP_SECONDS)
    band = (hz >= _VIBRATO_HZ[0]) & (hz <= _VIBRATO_HZ[1])
    for first, end in _true_runs(np.isfinite(semitones)):
        for start in range(first, end - size + 1):
            cents = 100 * semitones[start : start + size]
            cents = cents - cents.mean()
            cents -= time * (cents @ time) / (time @ time)
            power = np.abs(np.fft.rfft(cents * taper, 8 * size)) ** 2
            share = power[band].sum() / (power.sum() + 1e-12)
            if share > _VIBRATO_MIN_SHARE and np.sqrt(share) * cents.std() > _VIBRATO_MIN_CENTS:
                middle = start + size // 2
                vibrato[middle - size // 4 : middle + size // 4 + 1] = True
    return vibrato


def _step_levels_db(wave: Samples) -> FloatArray:
    """Return the level [step] in dB over 40 ms around every step."""
    power = uniform_filter1d(wave.astype(np.float64) ** 2, 2 * _HOP, mode="constant")[::_HOP]
    levels: FloatArray = 10 * np.log10(np.maximum(power, 1e-14))
    return levels


def _spectral_flatness_db(wave: Samples) -> FloatArray:
    """Return the geometric to the arithmetic mean of the power spectrum [step], dB."""
    padded = np.pad(wave.astype(np.float64), _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    flatness = []
    for block in np.array_split(frames, max(1, len(frames) // 4_096)):
        power = np.abs(np.fft.rfft(block * np.hanning(_WINDOW))[:, 4:]) ** 2 + 1e-14
        flatness.append(10 * np.log10(power).mean(axis=1) - 10 * np.log10(power.mean(axis=1)))
    return np.concatenate(flatness)


def _dilate_steps(steps: BoolArray, seconds_before: float, seconds_after: float) -> BoolArray:
    """Extend each True step by some time on both sides."""
    before, after = round(seconds_before / _STEP_SECONDS), round(seconds_after / _STEP_SECONDS)
    dilated = np.zeros_like(steps)
    for step in np.flatnonzero(steps):
        dilated[max(0, step - before) : step + after + 1] = True
    return dilated


def _true_runs(mask: BoolArray) -> list[tuple[int, int]]:
    """Return first step and end of every unbroken run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
