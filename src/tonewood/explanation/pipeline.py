"""A recording and a model → what the scorer heard: where, in which parts of notes, how surely."""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.audio_io.reader import resample
from tonewood.dsp import note_segmentation
from tonewood.dsp.features import cut_windows
from tonewood.dsp.filterbank import center_frequencies
from tonewood.dsp.note_segmentation import NoteSegments
from tonewood.enhancement.pipeline import scorer_input, to_analysis_rate
from tonewood.errors import CallError
from tonewood.explanation.note_statistics import PartSums, sum_by_part
from tonewood.mask.mask import Mask, moving_average
from tonewood.mask.render import RenderResult, apply_loudness_match, render_through_mask
from tonewood.model.model import Model
from tonewood.scorer.saliency import (
    RANDOM_ORDERS,
    Faithfulness,
    SaliencyMethod,
    attribution_by_band,
    compute_saliency,
    measure_faithfulness,
)
from tonewood.scorer.training import audible_windows
from tonewood.settings import RenderSettings, Settings
from tonewood.utils.arrays import FloatArray

TargetClass = Literal["reference", "source"]
PART_NAMES = (*note_segmentation.SEGMENT_NAMES, "quiet")
OCTAVE_CENTERS_HZ = (63, 125, 250, 500, 1_000, 2_000, 4_000, 8_000)  # Hz, the middle of each

_MUTED_DB = -60.0  # gain of what speaks for nothing
_NO_FADE_HZ = 1e6  # beyond any recording's half rate
_FULL_GAIN_QUANTILE = 0.9  # quantile of the evidence from which all of a cell is heard
_SMOOTH_FRAMES, _SMOOTH_ROWS = 5, 3


class EvidenceAudio(NamedTuple):
    """The recording filtered to what speaks for the class, and what that leaves."""

    used: RenderResult
    rest: RenderResult


class ExplanationFigures(Settings):
    """What the table of several recordings takes of each.

    `sums` are seconds, evidence and absolute evidence by part.
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
        """Evidence by part."""
        return None if self.sums is None else PartSums(*map(np.array, self.sums))


@dataclass(frozen=True, eq=False)
class Explanation:
    """What made a recording's score.

    Parameters
    ----------
    side : {"reference", "source"}
        The class that is explained; what speaks for it is positive throughout.
    evidence : Tensor [row, frame]
        Saliency, the base spread evenly over it, in logits; averaged where windows overlap, NaN in
        windows that are not scored. Zero is undecided.
    logit, map_mean, base : float
        Means over the windows that are scored: logit = map_mean + base, but for the residual.
    residual : float
        Largest difference from a window's logit that its map leaves unexplained.
    score : float
        As `tonewood score` gives it: 0 sounds like the reference.
    octaves : float array (octave,)
        What the average level in each octave added to the logit.
    parts : NoteSegments or None
        None if they were not asked for.
    faithfulness : Faithfulness
    """

    side: TargetClass
    method: SaliencyMethod
    evidence: Tensor
    logit: float
    map_mean: float
    base: float
    residual: float
    score: float
    windows: int
    octaves: FloatArray
    parts: NoteSegments | None
    faithfulness: Faithfulness

    @property
    def frame_evidence(self) -> FloatArray:
        """Evidence of every frame [frame], in logits: the mean of its rows."""
        means: FloatArray = self.evidence.mean(dim=0).double().numpy()
        return means

    def part_sums(self, frame_seconds: float) -> PartSums | None:
        """Evidence by part."""
        if self.parts is None:
            return None
        return sum_by_part(self.frame_evidence, self.parts.labels, len(PART_NAMES), frame_seconds)

    def figures(self, name: str, frame_seconds: float) -> ExplanationFigures:
        """What a table of several recordings takes of this one."""
        found = self.part_sums(frame_seconds)
        sums = None
        if found is not None:
            sums = tuple(tuple(it.tolist()) for it in (found.seconds, found.evidence, found.absolute))
        return ExplanationFigures(
            name=name,
            side=self.side,
            method=self.method,
            score=self.score,
            logit=self.logit,
            holds=self.faithfulness.is_faithful,
            octaves=tuple(self.octaves.tolist()),
            sums=sums,
        )

    @property
    def summary(self) -> dict[str, Any]:
        """Figures, as JSON."""
        names = ("side", "method", "score", "logit", "map_mean", "base", "residual", "windows")
        told = {{"side": "for"}.get(name, name): getattr(self, name) for name in names}
        faithful = self.faithfulness
        random = faithful.random_areas
        return {
            **told,
            "octaves": dict(zip(map(str, OCTAVE_CENTERS_HZ), self.octaves.tolist(), strict=True)),
            "faithful": {
                "holds": faithful.is_faithful,
                "verdict": faithful.line,
                "share": faithful.share.tolist(),
                "deletion": faithful.deletion.tolist(),
                "insertion": faithful.insertion.tolist(),
                "deletion_area": faithful.deletion_area,
                "insertion_area": faithful.insertion_area,
                "random_deletion_area": random[0],
                "random_insertion_area": random[1],
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

    Worked in double precision, window by window as `score` cuts them.

    Parameters
    ----------
    parts : bool
        Whether to name the parts of notes, which takes a sixth of the recording's duration.
    draws : int
        Random orders of regions that the map is compared with, one at least.
    seed : int
        Draws them.

    Raises
    ------
    CallError, MissingExtraError
        There is no such class or method, or what it needs is not installed.
    """
    check_target_class(side)
    wave = to_analysis_rate(samples, rate, model)
    rows = scorer_input(wave, model).double()
    scorer = deepcopy(model.scorer).double()
    cut = cut_windows(rows, scorer.crop_frames)
    heard = audible_windows(cut)
    clips = cut[heard]
    sign = -1.0 if side == "reference" else 1.0
    saliency = compute_saliency(scorer, clips, method)
    normalised = scorer.normalize(clips)

    def value(clips: Tensor) -> Tensor:
        with torch.no_grad():
            return sign * model.scorer.logit_from_normalized(clips.float())

    frames = rows.shape[1]
    spectrum = model.settings.spectrum
    found = None
    if parts:
        at_rate = resample(wave.numpy(), spectrum.rate, note_segmentation.PITCH_SAMPLE_RATE)
        found = note_segmentation.segment_notes(at_rate, frames, spectrum.frames_per_second)
    return Explanation(
        side=side,
        method=method,
        evidence=_overlap_mean(sign * (saliency.cells + saliency.base), heard, frames),
        logit=sign * float(saliency.logits.mean()),
        map_mean=sign * float(saliency.cells.mean()),
        base=sign * saliency.base,
        residual=saliency.residual,
        score=float(torch.sigmoid(saliency.logits).mean()),
        windows=len(clips),
        octaves=_sum_by_octave(sign * attribution_by_band(scorer, clips).mean(dim=0), model),
        parts=found,
        faithfulness=measure_faithfulness(
            value,
            normalised,
            torch.zeros_like(normalised),  # the mean row throughout
            sign * saliency.cells,
            torch.Generator().manual_seed(seed),
            draws=draws,
        ),
    )


def check_target_class(side: str) -> None:
    """Raise CallError unless it is one of the two classes."""
    if side not in get_args(TargetClass):
        raise CallError(f"the class is {side!r}; choose {' or '.join(get_args(TargetClass))}")


def filter_by_evidence(
    samples: NDArray[np.float32], rate: int, explanation: Explanation, model: Model
) -> EvidenceAudio | None:
    """Filter samples (channels, samples) to what speaks for the class, and to what that leaves.

    A soft mask: cells are heard in full from the top tenth of the evidence, in proportion
    below, not at all where they speak against the class; above what the scorer hears, nothing is.
    The two sum to the recording before each is made as loud as that. None if nothing in it speaks
    for the class.
    """
    mask = evidence_mask(explanation.evidence, model)
    if mask is None:
        return None
    settings = RenderSettings()
    raw = render_through_mask(
        samples, rate, mask, settings.model_copy(update={"match": False}), model.settings.spectrum
    )
    like = partial(apply_loudness_match, rate=rate, loudness=raw.loudness_before, settings=settings)
    return EvidenceAudio(like(raw.samples), like(samples - raw.samples))


def evidence_mask(evidence: Tensor, model: Model) -> Mask | None:
    """Mask whose gains follow evidence [row, frame] for a class; None where there is none."""
    positive = moving_average(evidence.nan_to_num(0.0).clamp_min(0), _SMOOTH_FRAMES, _SMOOTH_ROWS)
    some = positive[positive > 0]
    if some.numel() == 0:
        return None
    share = (positive / torch.quantile(some[:: 1 + len(some) // 1_000_000], _FULL_GAIN_QUANTILE)).clamp_max(1)
    gain = 20 * torch.log10(share.clamp_min(10 ** (_MUTED_DB / 20)))
    bands, spectrum = model.settings.scorer.bands, model.settings.spectrum
    hz = center_frequencies(bands, spectrum)
    # One row more, held down, just past what the scorer hears; no fade to 0 dB above it.
    rows = np.concatenate([gain.numpy(), np.full((1, gain.shape[1]), _MUTED_DB)])
    return Mask(
        rows.astype(np.float32),
        np.append(hz, max(spectrum.rate / 2, hz[-1] + 1.0)),
        spectrum.hop / spectrum.rate,
        top_hz=_NO_FADE_HZ,
    )


def _overlap_mean(values: Tensor, scored: Tensor, frames: int) -> Tensor:
    """Windows [n, row, frame] of those heard, laid where `cut_windows` cut them: [row, frame]."""
    length = values.shape[2]
    starts = torch.tensor([*range(0, frames - length, length), frames - length])[scored]
    total, count = torch.zeros(values.shape[1], frames, dtype=values.dtype), torch.zeros(frames)
    for start, window in zip(starts.tolist(), values, strict=True):
        total[:, start : start + length] += window
        count[start : start + length] += 1
    return total / torch.where(count > 0, count, torch.nan)


def _sum_by_octave(rows: Tensor, model: Model) -> FloatArray:
    hz = center_frequencies(model.settings.scorer.bands, model.settings.spectrum)
    edges = np.sqrt(np.array(OCTAVE_CENTERS_HZ[:-1]) * np.array(OCTAVE_CENTERS_HZ[1:]))
    place = np.searchsorted(edges, hz)
    return np.bincount(place, rows.numpy(), minlength=len(OCTAVE_CENTERS_HZ)).astype(np.float64)
