"""The confounds that an audit asks about: where each shows, what matters, what to do about it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tonewood.files.folders import Evidence
from tonewood.scoring.audit import Question
from tonewood.scoring.findings import Finding
from tonewood.signal.marks import CENTRES_HZ, Floats

_OCTAVES_HZ = (125, 250, 500, 1_000, 2_000, 4_000)
_NO_HUM_DB = 8.0  # what the tallest of six multiples stands out by where there is only noise
_NO_OFFSET_DB = -80.0
_ANALYSED_HZ = 8_000.0


class Feature(NamedTuple):
    """One number of a recording.

    Parameters
    ----------
    label : str
        With its unit.
    step : float
        Smallest difference of consequence, in the unit, or in octaves if `log`.
    of : callable
        The number, in the unit, or None where unknown.
    log : bool
        Compared by ratio.
    """

    label: str
    step: float
    of: Callable[[Evidence], float | None]
    log: bool = False


class Confound(NamedTuple):
    """What may tell two folders apart although it is not the instrument.

    Parameters
    ----------
    remedy : str
        What to do about it, as a clause.
    unheard : str
        Why the scorer does not hear it; empty if it may.
    fix : str
        What `train --fix` calls its cure; empty if there is none.
    """

    name: str
    features: tuple[Feature, ...]
    remedy: str
    unheard: str = ""
    fix: str = ""


def _colour(octave: float) -> Callable[[Evidence], float | None]:
    """Level of one octave of the floor against the mean of all octaves compared, dB."""

    def of(it: Evidence) -> float | None:
        if it.traces.floor_db is None:
            return None
        levels = [_octave_db(it.traces.floor_bands_db, hz) for hz in _OCTAVES_HZ]
        return _octave_db(it.traces.floor_bands_db, octave) - float(np.mean(levels))

    return of


def _octave_db(bands_db: Floats, octave: float) -> float:
    third = np.abs(np.log2(CENTRES_HZ / octave)) < 0.4
    return float(10 * np.log10(np.nansum(10 ** (bands_db[third] / 10)) + 1e-16))


def _tail(number: int) -> Callable[[Evidence], float | None]:
    return lambda it: it.traces.decay_s[number] if it.traces.decay_s else None


def _hum(number: int) -> Callable[[Evidence], float | None]:
    return lambda it: max(_NO_HUM_DB, it.traces.hum_db[number]) if it.traces.hum_db else None


CONFOUNDS = (
    Confound(
        "level",
        (Feature("loudness, LUFS", 0.75, lambda it: it.traces.loudness),),
        "match the levels, or train with --fix level",
        unheard="levels count relative to the clip's own",
        fix="level",
    ),
    Confound(
        "noise floor",
        (
            Feature(
                "floor against loudness, dB",
                1.5,
                lambda it: _relative(it.traces.floor_db, it.traces.loudness),
            ),
        ),
        "record both with the same gain and microphone, or train with --fix noise",
        fix="noise",
    ),
    Confound(
        "noise colour",
        tuple(Feature(f"floor at {hz} Hz, dB", 2.0, _colour(hz)) for hz in _OCTAVES_HZ),
        "record some seconds of silence in one place for both, or train with --fix noise",
        fix="noise",
    ),
    Confound(
        "silence",
        (
            Feature("before the first sound, s", 0.25, lambda it: it.traces.lead_s),
            Feature("after the last sound, s", 0.25, lambda it: it.traces.tail_s),
            Feature("silent frames, %", 5.0, lambda it: 100 * it.traces.silent),
            Feature("frames gated to nothing, %", 2.0, lambda it: 100 * it.traces.gated),
        ),
        "trim both sides alike, and leave gates off",
    ),
    Confound(
        "bandwidth",
        (Feature("cut-off, Hz", 0.1, lambda it: it.traces.cutoff_hz, log=True),),
        "export both from the originals, or train with --fix bandwidth",
        fix="bandwidth",
    ),
    Confound(
        "codec",
        (Feature("holes above 4 kHz, %", 1.0, lambda it: 100 * it.traces.holes + 0.05, log=True),),
        "use recordings that no lossy codec or denoiser has touched",
    ),
    Confound(
        "hum",
        (
            Feature("line on 50 Hz multiples, dB", 2.0, _hum(0)),
            Feature("line on 60 Hz multiples, dB", 2.0, _hum(1)),
        ),
        "record again without the hum, or notch it out of both sides",
    ),
    Confound(
        "offset",
        (Feature("offset, dBFS", 6.0, lambda it: max(_NO_OFFSET_DB, it.traces.offset_db)),),
        "take the constant part off both sides",
        unheard="nothing below 40 Hz is looked at",
    ),
    Confound(
        "clipping",
        (Feature("flat tops a minute", 1.0, lambda it: 1 + it.traces.clips, log=True),),
        "leave out clipped takes, or record them again",
    ),
    Confound(
        "reverberation",
        (
            Feature("tail, 500 Hz to 2 kHz, s", 0.1, _tail(0), log=True),
            Feature("tail, 2 to 5 kHz, s", 0.1, _tail(1), log=True),
        ),
        "record both in one room at one distance; if you did, it is how the instruments ring on",
    ),
    Confound(
        "sample rate",
        (Feature("rate, Hz", 0.05, lambda it: it.traces.rate, log=True),),
        "export both at one rate",
    ),
    Confound(
        "stereo width",
        (Feature("sides against middle, dB", 2.0, lambda it: it.traces.width_db),),
        "record both with one arrangement of microphones",
        unheard="channels are mixed to one",
    ),
    Confound(
        "duration",
        (Feature("duration, s", 0.25, lambda it: it.traces.seconds, log=True),),
        "see whether the two folders were made in the same way",
        unheard="it looks at three seconds at a time",
    ),
    Confound(
        "file format",
        (
            Feature("bits", 1.0, lambda it: it.bits),
            Feature("lossy", 0.25, lambda it: float(it.lossy)),
        ),
        "export both in one lossless format from the originals",
        unheard="only what it did to the sound is heard",
    ),
)


def questions(evidence: Sequence[Evidence]) -> list[Question]:
    """What each confound has to go on, for recordings in this order."""
    return [
        Question(
            confound.name,
            np.stack([_column(feature, evidence) for feature in confound.features], axis=1),
            np.array([feature.step for feature in confound.features]),
        )
        for confound in CONFOUNDS
    ]


def told(finding: Finding, confound: Confound, sides: Sequence[Sequence[Evidence]]) -> Finding:
    """A finding with the medians of both folders; what is not heard is no more than a warning."""
    heard = not why_unheard(confound, sides)
    verdict = finding.verdict
    return finding.model_copy(
        update={
            "reference": tuple(median(feature, sides[0]) for feature in confound.features),
            "source": tuple(median(feature, sides[1]) for feature in confound.features),
            "heard": heard,
            "verdict": "beware" if verdict == "confounded" and not heard else verdict,
        }
    )


def why_unheard(confound: Confound, sides: Sequence[Sequence[Evidence]]) -> str:
    """Why the scorer does not hear a confound; empty if it may.

    Cut-offs and rates matter only where they reach below what is analysed.
    """
    lowest = {
        "bandwidth": lambda it: it.traces.cutoff_hz,
        "sample rate": lambda it: it.traces.rate / 2,
    }.get(confound.name)
    if lowest and min(float(np.median([lowest(it) for it in side])) for side in sides) >= (
        _ANALYSED_HZ
    ):
        return "nothing above 8 kHz is looked at"
    return confound.unheard


def median(feature: Feature, evidence: Sequence[Evidence]) -> float | None:
    """Median of a feature over those recordings that have it."""
    known = [value for it in evidence if (value := feature.of(it)) is not None]
    return float(np.median(known)) if known else None


def values(feature: Feature, evidence: Sequence[Evidence]) -> Floats:
    """A feature [recording] in its own unit; NaN where unknown."""
    found = [feature.of(it) for it in evidence]
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)


def _column(feature: Feature, evidence: Sequence[Evidence]) -> Floats:
    column = values(feature, evidence)
    return np.log2(np.maximum(column, 1e-9)) if feature.log else column


def _relative(level: float | None, loudness: float) -> float | None:
    return None if level is None else level - loudness
