"""Two instruments with one difference: vibrato, attack, or a resonance of the body.

Notes are sums of partials under a body's resonances. Each phrase has detached and slurred notes; a
note starts straight, and may get vibrato after its first half.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

RATE = 16_000
Wave = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_MODES = 60  # of the body, close together as those of real ones: vibrato makes partials swell
_SLUR_SECONDS = 0.06
_STRAIGHT_SECONDS = 0.35  # at both ends of a note: more than a scorer's reach beyond them


@dataclass(frozen=True)
class Instrument:
    """Parameters of a player and an instrument body.

    Parameters
    ----------
    vibrato_cents : float
        Half the swing of the pitch, 5.5 times a second, in the second half of long notes.
    bite_db : float
        Level of the noise of the bow's first 60 ms, relative to the tone.
    resonance_db : float
        Height of one more resonance.
    resonance_hz : float
        Its frequency.
    """

    vibrato_cents: float = 0.0
    bite_db: float = -60.0
    resonance_db: float = 0.0
    resonance_hz: float = 1_000.0


PLAIN = Instrument()
CAUSES = {
    "vibrato": replace(PLAIN, vibrato_cents=45.0),
    "attack": replace(PLAIN, bite_db=-4.0),
    "resonance": replace(PLAIN, resonance_db=9.0),
}


def phrase(instrument: Instrument, seconds: float, seed: int) -> Wave:
    """Synthesise a phrase [sample] at 16 kHz; the seed draws notes, loudness and variation."""
    rng = np.random.default_rng(seed)
    total = round(seconds * RATE)
    pieces: list[Floats] = []
    length = 0
    while length < total:
        notes = [(int(rng.integers(43, 68)), rng.uniform(1.1, 1.9)) for _ in range(rng.integers(1, 4))]
        rest = np.zeros(round(rng.uniform(0.08, 0.2) * RATE))
        pieces += [_slurred(instrument, notes, rng), rest]
        length += len(pieces[-2]) + len(rest)
    wave = np.concatenate(pieces)[:total]
    wave = 0.1 * wave / np.sqrt(np.mean(wave**2)) + 3e-4 * rng.standard_normal(total)
    return np.clip(wave, -1, 1).astype(np.float32)


def _slurred(instrument: Instrument, notes: list[tuple[int, float]], rng: np.random.Generator) -> Floats:
    """Synthesise slurred notes (MIDI pitch, seconds) [sample]: only the first has an attack."""
    pitch = np.concatenate([_pitch(instrument, midi, s, rng) for midi, s in notes])
    # A finger does not jump: a moving average makes slurs of steps, and leaves vibrato.
    kernel = np.hanning(round(_SLUR_SECONDS * RATE))
    edge = len(kernel) // 2
    padded = np.pad(pitch, (edge, len(kernel) - 1 - edge), mode="edge")
    pitch = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    hz = 440 * 2 ** ((pitch - 69) / 12)
    time = np.arange(len(hz)) / RATE
    left = time[-1] - time
    tone = _partials(instrument, hz, rng)
    tone *= np.minimum(1, time / 0.03) * np.minimum(1, left / 0.06)
    tone *= 10 ** (rng.uniform(-4, 4) / 20)
    bite = rng.standard_normal(len(hz)) * np.exp(-((time / 0.045) ** 2))
    loudness = np.sqrt(np.mean(tone**2))
    return tone + loudness * 10 ** (instrument.bite_db / 20) * bite


def _pitch(instrument: Instrument, midi: int, seconds: float, rng: np.random.Generator) -> Floats:
    """Return the MIDI pitch [sample] of one note."""
    time = np.arange(round(seconds * RATE)) / RATE
    inside = np.minimum(time - _STRAIGHT_SECONDS, seconds - _STRAIGHT_SECONDS - time)
    depth = instrument.vibrato_cents / 100 * np.clip(inside / 0.1, 0, 1)
    swing = np.sin(2 * np.pi * (5.5 * time + rng.uniform()))
    return midi + rng.normal(0, 0.05) + depth * swing


def _partials(instrument: Instrument, hz: Floats, rng: np.random.Generator) -> Floats:
    """Sum the partials [sample] of a pitch in Hz [sample], with the gains of the body."""
    body = 10 ** (_body_db(instrument) / 20)
    phase = 2 * np.pi * np.cumsum(hz) / RATE
    tone = np.zeros(len(hz))
    for number in range(1, int(7_600 / hz.min()) + 1):
        at = number * hz
        level = np.interp(at, np.arange(len(body)), body) / number
        tone += np.where(at < 7_800, level, 0) * np.sin(number * phase + rng.uniform(0, 2 * np.pi))
    return tone


@lru_cache(maxsize=8)
def _body_db(instrument: Instrument) -> Floats:
    """Return the gain of the body at every whole frequency up to 8 kHz."""
    rng = np.random.default_rng(0)
    hz = np.arange(RATE // 2 + 1.0)
    gain = np.zeros_like(hz)
    for centre in np.geomspace(150, 7_000, _MODES) * rng.uniform(0.98, 1.02, _MODES):
        gain += rng.uniform(-10, 10) / (1 + ((hz - centre) / (0.015 * centre)) ** 2)
    width = 0.12 * instrument.resonance_hz
    wide = instrument.resonance_db / (1 + ((hz - instrument.resonance_hz) / width) ** 2)
    return gain + wide
