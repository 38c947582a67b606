"""Explain a score: when, at which frequencies and in which parts of notes the scorer found evidence."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.recording import resample
from tonewood.dsp.features import center_frequencies, cut_windows
from tonewood.dsp.note_segmentation import PITCH_SAMPLE_RATE, SEGMENT_NAMES, NoteSegments, segment_notes
from tonewood.enhancement.pipeline import scorer_input, to_analysis_rate
from tonewood.errors import CallError
from tonewood.explanation.note_statistics import PartSums, sum_by_part
from tonewood.mask.mask import Mask, moving_average
from tonewood.mask.render import RenderResult, apply_loudness_match, render_through_mask
from tonewood.model.model import Model
from tonewood.scorer.network import Scorer, audible_windows
from tonewood.scorer.saliency import (
    RANDOM_ORDERS,
    Faithfulness,
    SaliencyMethod,
    attribution_by_band,
    compute_saliency,
    measure_faithfulness,
)
from tonewood.setting_types import Settings
from tonewood.settings import RenderSettings
from tonewood.utils.arrays import FloatArray, RandomDraws
from tonewood.utils.layers import sigmoid

TargetClass = Literal["reference", "source"]
PART_NAMES = (*SEGMENT_NAMES, "quiet")
OCTAVE_CENTERS_HZ = (63, 125, 250, 500, 1_000, 2_000, 4_000, 8_000)  # Hz

_MUTED_DB = -60.0  # gain of cells without evidence for the class
_NO_FADE_HZ = 1e6  # above half of any sample rate
_FULL_GAIN_QUANTILE = 0.9  # cells above this quantile of the evidence pass in full
_SMOOTH_FRAMES, _SMOOTH_ROWS = 5, 3


class EvidenceAudio(NamedTuple):
    """The recording filtered to the evidence for the class, and the rest of it."""

    used: RenderResult
    rest: RenderResult


class ExplanationFigures(Settings):
    """Figures of one explanation, for the table of several recordings.

    `sums` holds seconds, evidence and absolute evidence by part.
    """

    name: str
    side: TargetClass
    method: SaliencyMethod
    score: float
    logit: float
    holds: bool
    octaves: tuple[float, ...]
    sums: tuple[tuple[float, ...], ...] | None

    @property
    def part_sums(self) -> PartSums | None:
        """Sums by part; None without parts."""
        return None if self.sums is None else PartSums(*map(np.array, self.sums))


@dataclass(frozen=True, eq=False)
class Explanation:
    """Explanation of a recording's score."""

    side: TargetClass  # explained class; positive evidence speaks for it
    method: SaliencyMethod
    # [row, frame]: saliency in logits, with the base spread evenly over it. Averaged where windows overlap,
    # NaN in windows that are too quiet to be scored.
    evidence: FloatArray
    # Means over the scored windows; logit = map_mean + base, up to the residual
    logit: float
    map_mean: float
    base: float
    residual: float  # largest part of a window's logit that its map does not explain
    score: float  # score as in `tonewood score`: 0 sounds like the reference
    windows: int
    octaves: FloatArray  # [octave]: contribution of the average level in each octave to the logit
    parts: NoteSegments | None  # None unless requested
    faithfulness: Faithfulness

    @property
    def frame_evidence(self) -> FloatArray:
        """Mean evidence over rows [frame], in logits."""
        means: FloatArray = self.evidence.mean(axis=0, dtype=np.float64)
        return means

    def part_sums(self, frame_seconds: float) -> PartSums | None:
        """Return sums by part; None without parts."""
        if self.parts is None:
            return None
        return sum_by_part(self.frame_evidence, self.parts.labels, len(PART_NAMES), frame_seconds)

    def figures(self, name: str, frame_seconds: float) -> ExplanationFigures:
        """Return the figures for the table of several recordings."""
        sums = self.part_sums(frame_seconds)
        return ExplanationFigures(
            name=name,
            side=self.side,
            method=self.method,
            score=self.score,
            logit=self.logit,
            holds=self.faithfulness.is_faithful,
            octaves=tuple(self.octaves.tolist()),
            sums=None
            if sums is None
            else tuple(tuple(values.tolist()) for values in (sums.seconds, sums.evidence, sums.absolute)),
        )

    @property
    def summary(self) -> dict[str, Any]:
        """Explanation without its map, for JSON."""
        faithful = self.faithfulness
        random_deletion, random_insertion = faithful.random_areas
        names = ("method", "score", "logit", "map_mean", "base", "residual", "windows")
        return {
            "for": self.side,
            **{name: getattr(self, name) for name in names},
            "octaves": dict(zip(map(str, OCTAVE_CENTERS_HZ), self.octaves.tolist(), strict=True)),
            "faithful": {
                "holds": faithful.is_faithful,
                "verdict": faithful.line,
                "share": faithful.share.tolist(),
                "deletion": faithful.deletion.tolist(),
                "insertion": faithful.insertion.tolist(),
                "deletion_area": faithful.deletion_area,
                "insertion_area": faithful.insertion_area,
                "random_deletion_area": random_deletion,
                "random_insertion_area": random_insertion,
                "beaten": list(faithful.fraction_beaten),
            },
        }


def explain_recording(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    *,
    side: TargetClass = "reference",
    method: SaliencyMethod = "cam",
    parts: bool = True,
    draws: int = RANDOM_ORDERS,
    seed: int = 0,
) -> Explanation:
    """Explain the score of samples (channels, samples) at any rate.

    Computed in double precision, on the windows that `score` uses.

    Parameters
    ----------
    parts : bool
        Also find the parts of notes, which takes a sixth of the recording's duration.
    draws : int
        Number of random orders that the map is compared with, at least 1.
    seed : int
        Seed of the random orders.

    Raises
    ------
    CallError
        The class or the method does not exist.
    MissingExtraError
        A library that the method needs is not installed.
    """
    check_target_class(side)
    wave = to_analysis_rate(samples, rate, model)
    # Double precision, so that map and bias sum to the logit up to rounding only.
    rows, scorer = scorer_input(wave, model), _in_double_precision(model.scorer)
    windows, frames = cut_windows(rows, scorer.crop_frames), rows.shape[1]
    scored = audible_windows(windows)
    clips = windows[scored].astype(np.float64)
    # A positive logit means "source": flip it so that evidence for the class is positive.
    sign = -1.0 if side == "reference" else 1.0
    saliency = compute_saliency(scorer, clips, method)
    return Explanation(
        side=side,
        method=method,
        evidence=_overlap_mean(sign * (saliency.cells + saliency.base), scored, frames),
        logit=sign * float(saliency.logits.mean()),
        map_mean=sign * float(saliency.cells.mean()),
        base=sign * saliency.base,
        residual=saliency.residual,
        score=float(sigmoid(saliency.logits).mean()),
        windows=len(clips),
        octaves=_sum_by_octave(sign * attribution_by_band(scorer, clips).mean(axis=0), model),
        parts=_find_parts(wave, frames, model) if parts else None,
        faithfulness=_test_map(model.scorer, scorer.normalize(clips), saliency.cells, sign, draws, seed),
    )


def _in_double_precision(scorer: Scorer) -> Scorer:
    weights = {name: weight.astype(np.float64) for name, weight in scorer.weights.items()}
    return Scorer(scorer.settings, scorer.spectrum, weights)


def _find_parts(wave: NDArray[np.float32], frames: int, model: Model) -> NoteSegments:
    spectrum = model.settings.spectrum
    wave_at_pitch_rate = resample(wave, spectrum.rate, PITCH_SAMPLE_RATE)
    return segment_notes(wave_at_pitch_rate, frames, spectrum.frames_per_second)


def _test_map(
    scorer: Scorer, normalized: FloatArray, cells: FloatArray, sign: float, draws: int, seed: int
) -> Faithfulness:
    """Compare a map [clip, row, frame] with random orders; `normalized` is the scorer's input."""

    def evaluate(clips: FloatArray) -> FloatArray:
        # Single precision is enough here: areas are compared, not summed to a logit.
        return sign * scorer.logit_from_normalized(clips.astype(np.float32))

    mean_spectrum = np.zeros_like(normalized)  # of the folders
    return measure_faithfulness(
        evaluate, normalized, mean_spectrum, sign * cells, RandomDraws(seed), draws=draws
    )


def check_target_class(side: str) -> None:
    """Raise CallError unless the name is one of the two classes."""
    if side not in get_args(TargetClass):
        raise CallError(f"--for is {side!r}: choose {' or '.join(get_args(TargetClass))}")


def filter_by_evidence(
    samples: NDArray[np.float32], rate: int, explanation: Explanation, model: Model
) -> EvidenceAudio | None:
    """Filter samples (channels, samples) to the evidence for the class, and to the rest.

    Both parts sum to the recording; then each is matched to its loudness. None if there is no
    evidence for the class.
    """
    mask = evidence_mask(explanation.evidence, model)
    if mask is None:
        return None
    settings = RenderSettings()
    raw = render_through_mask(samples, rate, mask, settings.replace(match=False), model.settings.spectrum)
    match = partial(apply_loudness_match, rate=rate, loudness=raw.loudness_before, settings=settings)
    return EvidenceAudio(match(raw.samples), match(samples - raw.samples))


def evidence_mask(evidence: FloatArray, model: Model) -> Mask | None:
    """Return a mask whose gains follow the evidence [row, frame]; None if no cell has any.

    Cells in the top tenth of the evidence pass in full, others in proportion. Cells against the
    class and frequencies above the scorer's range are muted.
    """
    positive = moving_average(np.nan_to_num(evidence, nan=0.0).clip(0), _SMOOTH_FRAMES, _SMOOTH_ROWS)
    values = positive[positive > 0]
    if values.size == 0:
        return None
    # Of a long recording, every n-th value is enough.
    sample = values[:: 1 + len(values) // 1_000_000]
    share = (positive / np.quantile(sample, _FULL_GAIN_QUANTILE)).clip(max=1)
    gain = 20 * np.log10(share.clip(10 ** (_MUTED_DB / 20)))
    bands, spectrum = model.settings.scorer.bands, model.settings.spectrum
    hz = center_frequencies(bands, spectrum)
    # A muted row just above the scorer's range: without it, gains there would fade to 0 dB.
    rows = np.concatenate([gain, np.full((1, gain.shape[1]), _MUTED_DB)])
    return Mask(
        rows.astype(np.float32),
        np.append(hz, max(spectrum.rate / 2, hz[-1] + 1.0)),
        spectrum.hop / spectrum.rate,
        top_hz=_NO_FADE_HZ,
    )


def _overlap_mean(values: FloatArray, scored: NDArray[np.bool_], frames: int) -> FloatArray:
    """Average windows [window, row, frame] at the positions of `cut_windows`: [row, frame]."""
    length = values.shape[2]
    starts = np.array([*range(0, frames - length, length), frames - length])[scored]
    total, count = np.zeros((values.shape[1], frames)), np.zeros(frames)
    for start, window in zip(starts.tolist(), values, strict=True):
        total[:, start : start + length] += window
        count[start : start + length] += 1
    # The last window overlaps the one before; frames outside all scored windows become NaN.
    return total / np.where(count > 0, count, np.nan)


def _sum_by_octave(rows: FloatArray, model: Model) -> FloatArray:
    hz = center_frequencies(model.settings.scorer.bands, model.settings.spectrum)
    # Octaves meet at the geometric mean of their centres.
    edges = np.sqrt(np.array(OCTAVE_CENTERS_HZ[:-1]) * np.array(OCTAVE_CENTERS_HZ[1:]))
    octave = np.searchsorted(edges, hz)
    return np.bincount(octave, rows, minlength=len(OCTAVE_CENTERS_HZ)).astype(np.float64)
