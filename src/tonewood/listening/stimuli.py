"""From pieces to what is heard: excerpts, fades, equal loudness, anchors, checks of the ears.

All files of a test are alike in rate, channels, samples and bytes; nothing but the sound differs.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, kaiserord, oaconvolve

from tonewood.signal.loudness import integrated_loudness, true_peak_db

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]

TARGET_LUFS, MAX_PEAK_DB, MATCH_TOLERANCE_LU = -23.0, -1.0, 0.1
STIMULUS_FADE_SECONDS = 0.05
MIN_EXCERPT_SECONDS, MAX_EXCERPT_SECONDS = 5.0, 12.0
_ANCHOR_STOPBAND_DB = 60.0
_TRANSITION_RATIO = 1 / 7  # of the corner: 3.5 kHz passes, 4 kHz does not
_MAX_GAIN_ROUNDS = 8

HEADPHONE_TRIALS = 6
_TONE_HZ, _TONE_SECONDS, _GAP_SECONDS, _RAMP_SECONDS = 200.0, 1.0, 0.5, 0.1
_HEARING_HZ = (500.0, 2_000.0, 6_000.0)
_HEARING_DB = -50.0
_MAX_PULSES = 6


def find_strongest_excerpt(effect: Floats, frames: int, used_starts: tuple[int, ...] = ()) -> int | None:
    """First frame of the stretch in which most is done; none that overlaps one taken before."""
    sums = np.convolve(effect, np.ones(frames), mode="valid")
    for start in used_starts:
        sums[max(0, start - frames + 1) : start + frames] = -1.0
    best = int(np.argmax(sums))
    return best if sums[best] >= 0 else None


def draw_random_excerpt(effect: Floats, frames: int, rng: np.random.Generator) -> int | None:
    """First frame of a stretch drawn from all that sound for half of their length at least.

    `effect_db` is positive just where the recording sounds; silence compares nothing.
    """
    sounding = np.convolve(effect > 0, np.ones(frames), mode="valid")
    starts = np.flatnonzero(sounding >= frames / 2)
    return int(rng.choice(starts)) if len(starts) else None


def apply_fades(wave: Samples, rate: int) -> Samples:
    """Raised-cosine fades at both ends of (channels, samples)."""
    length = round(STIMULUS_FADE_SECONDS * rate)
    rise = np.sin(np.linspace(0, np.pi / 2, length)) ** 2
    shaped = wave.astype(np.float64)
    shaped[:, :length] *= rise
    shaped[:, -length:] *= rise[::-1]
    return shaped.astype(np.float32)


def low_pass_anchor(wave: Samples, rate: int, corner_hz: float) -> Samples:
    """Anchor of BS.1534-3: flat to 0.1 dB below the corner, 60 dB down a seventh above it.

    The recommendation asks for 25 dB and 50 dB at 4 kHz and 4.5 kHz; the filter's delay is taken
    off, so that switching stays synchronous.
    """
    taps, beta = kaiserord(_ANCHOR_STOPBAND_DB, _TRANSITION_RATIO * corner_hz / (rate / 2))
    taps |= 1
    kernel = firwin(taps, corner_hz * (1 + _TRANSITION_RATIO / 2), window=("kaiser", beta), fs=rate)
    return np.asarray(oaconvolve(wave, kernel[None], mode="same", axes=1), dtype=np.float32)


def equalize_loudness(waves: Mapping[str, Samples], rate: int) -> dict[str, Samples]:
    """All conditions of an excerpt at one loudness: −23 LUFS, or as much as their peaks leave.

    Raises
    ------
    ValueError
        One of them has no loudness: it is silent.
    """
    loudness = {name: integrated_loudness(wave, rate) for name, wave in waves.items()}
    if not np.isfinite(list(loudness.values())).all():
        raise ValueError("silence")
    room = [TARGET_LUFS - loud + true_peak_db(waves[name], rate) for name, loud in loudness.items()]
    target = TARGET_LUFS - max(0.0, max(room) - MAX_PEAK_DB)
    return {name: _scale_to_loudness(wave, rate, target) for name, wave in waves.items()}


def _scale_to_loudness(wave: Samples, rate: int, target: float) -> Samples:
    """Loudness is gated, so a gain moves it by not quite as much: a few rounds settle it."""
    for _ in range(_MAX_GAIN_ROUNDS):
        off = target - integrated_loudness(wave, rate)
        if abs(off) < 1e-3:
            break
        wave = (wave * 10 ** (off / 20)).astype(np.float32)
    return wave


def quantize_with_dither(wave: Samples, rng: np.random.Generator) -> NDArray[np.int16]:
    """16-bit samples (samples, channels) with triangular dither, drawn anew for every file."""
    shape = wave.T.shape
    noise = rng.random(shape) - rng.random(shape)
    steps = np.round(wave.T.astype(np.float64) * 32767 + noise)
    return np.clip(steps, -32768, 32767).astype(np.int16)


def headphone_check_sound(rate: int, order: NDArray[np.int64]) -> Samples:
    """Three tones, of which one is 6 dB softer and one is in antiphase (Woods et al. 2017).

    Over headphones the softer one is the softest; over loudspeakers the antiphase tone cancels.

    Parameters
    ----------
    order : array [3]
        Places of the plain, the softer and the antiphase tone.
    """
    tone = _ramped_tone(_TONE_HZ, _TONE_SECONDS, rate, -26.0)
    soft = 10 ** (-6 / 20)
    kinds = (np.stack([tone, tone]), np.stack([tone, tone]) * soft, np.stack([tone, -tone]))
    gap = np.zeros((2, round(_GAP_SECONDS * rate)))
    placed = [kinds[k] for k in np.argsort(order)]
    parts = [part for tone in placed for part in (tone, gap)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def hearing_check_sound(rate: int, hz: float, count: int) -> Samples:
    """So many soft pulses of a tone, spread over the same time whatever their number."""
    pulse = _ramped_tone(hz, 0.25, rate, _HEARING_DB)
    wave = np.zeros(round(_MAX_PULSES * 0.6 * rate))
    for k in range(count):
        start = round((0.2 + 0.6 * k) * rate)
        wave[start : start + len(pulse)] += pulse
    return np.stack([wave, wave]).astype(np.float32)


def make_check_sounds(rate: int, rng: np.random.Generator) -> list[tuple[str, int, Samples]]:
    """Kind, right answer and sound of every check, in stereo."""
    made = []
    for hz in _HEARING_HZ:
        count = int(rng.integers(2, 6))
        made.append(("hearing", count, hearing_check_sound(rate, hz, count)))
    for _ in range(HEADPHONE_TRIALS):
        order = rng.permutation(3)
        made.append(("headphones", int(order[1]) + 1, headphone_check_sound(rate, order)))
    return made


def _ramped_tone(hz: float, seconds: float, rate: int, level_db: float) -> Floats:
    time = np.arange(round(seconds * rate)) / rate
    ramp = np.minimum(1.0, np.minimum(time, seconds - time) / _RAMP_SECONDS)
    wave: Floats = 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * time) * ramp
    return wave
