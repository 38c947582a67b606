"""Masks without a search: of the model's priors, and of its predictor."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.recording import resample_blocks
from tonewood.dsp.chunking import (
    Chunk,
    LazyTimeSeries,
    Segment,
    TimeSeries,
    overlapping_chunks,
    read_segments,
    split_segments,
)
from tonewood.dsp.features import (
    N_PITCH_BINS,
    PITCH_HOP_RATIO,
    Features,
    band_levels,
    center_frequencies,
    frame_levels,
    remove_envelope,
    total_power,
)
from tonewood.dsp.stft import scale_to_rate
from tonewood.enhancement.analysis import Analysis, AudioSource
from tonewood.errors import ModelError, printable
from tonewood.mask.certificate import adaptive_share
from tonewood.mask.mask import Mask, resample_mask
from tonewood.model.model import Model
from tonewood.priors.nearest_neighbours import PriorFeatures
from tonewood.priors.predictor import Predictor
from tonewood.priors.priors import BlendWeights, MaskProjection, Priors
from tonewood.setting_types import PriorKind
from tonewood.utils.arrays import DiskArray, FloatArray, Levels, Samples, to_mono
from tonewood.utils.parallel import parallel_map

_PRIOR_SEGMENT_FRAMES = 3_000  # half a minute: short enough to keep every core busy
_PRIOR_MARGIN_FRAMES = 32  # reach of surroundings, smoothing and networks; even, for the pitch frames
# The margin covers half a window on either side, which by default is 1.5 hops.
_PREDICTOR_CHUNK_FRAMES, _PREDICTOR_MARGIN_FRAMES = 1_024, 4


class PriorMask(NamedTuple):
    """Mask [row, frame] of a prior, and the recording's mean level under it, both in dB."""

    mask_db: TimeSeries
    level_db: float


def find_prior_mask(
    kind: PriorKind,
    analysis: Analysis,
    hz: FloatArray,
    model: Model,
    scratch_dir: Path | None = None,
    *,
    fade: bool = True,
    unlikeness: float | None = None,
) -> PriorMask:
    """Return the mask of a prior, on rows with centre frequencies `hz`.

    Parameters
    ----------
    fade : bool
        Fade out the adaptive part of `auto` for recordings that are unlike both folders.
    unlikeness : float, optional
        Distance of the recording from the nearer folder, if it was measured already.
    """
    frames = analysis.rows_db.frames
    if kind in ("none", "random", "blocks"):
        # The paper's ‖X_inp - X_t‖² pulls towards no change.
        flat = LazyTimeSeries(frames, lambda start, stop: np.zeros((len(hz), stop - start), dtype=np.float32))
        return PriorMask(flat, analysis.levels.mean_db)
    priors, weights = model.priors, model.priors.weights_of(kind)
    scaled = priors.scales_by_need(kind)
    adaptivity = 1.0
    if scaled and fade:
        if unlikeness is None:
            unlikeness = model.folder_distances(analysis.rows_db).nearer
        adaptivity = adaptive_share(unlikeness)
    suggestions = _collect_suggestions(analysis, priors, weights, scratch_dir, with_remaining=scaled)

    # The blend needs the means over the whole recording, hence this second pass.
    gains, projection = DiskArray(len(priors.static_db), scratch_dir), MaskProjection(0.0, 0.0)
    for part in split_segments(frames):
        masks = [None if mask is None else mask.read(part.start, part.stop) for mask in suggestions.masks_db]
        activity = suggestions.activity[part.start : part.stop]
        mask = priors.combine(np.float32(adaptivity) * activity, masks, suggestions.means_db, weights)
        gains.append(mask)
        if suggestions.remaining_db is not None:
            remaining = suggestions.remaining_db.read(part.start, part.stop)
            projection = projection.add(MaskProjection.from_masks(remaining, mask, activity))
    need = np.float32(priors.need(projection) if scaled else 1.0)
    prior_db = LazyTimeSeries(frames, lambda start, stop: need * gains.read(start, stop))

    power = math.fsum(
        total_power(frame_levels(rows + mask))
        for rows, mask in zip(read_segments(analysis.rows_db), read_segments(prior_db), strict=True)
    )
    level_db = 10 * math.log10(power / frames)

    spectrum = model.settings.spectrum
    hop = spectrum.hop / spectrum.rate
    prior_hz = center_frequencies(model.settings.scorer.bands, spectrum)
    if np.array_equal(prior_hz, hz):
        return PriorMask(prior_db, level_db)
    prior = Mask(prior_db, prior_hz, hop, spectrum.rate / 2)
    return PriorMask(resample_mask(prior, hz, hop, frames), level_db)


class _Suggestions(NamedTuple):
    """Adaptive masks [row, frame], their means [row] over audible frames, and the activity [frame].

    `remaining_db` is the mask [row, frame] that the recording still needs; None if it is not computed.
    """

    masks_db: list[DiskArray | None]
    means_db: list[NDArray[np.float32] | None]
    activity: NDArray[np.float32]
    remaining_db: DiskArray | None


def _collect_suggestions(
    analysis: Analysis,
    priors: Priors,
    weights: BlendWeights,
    scratch_dir: Path | None,
    *,
    with_remaining: bool,
) -> _Suggestions:
    """Compute the adaptive masks of a recording, segment by segment."""
    # All but the static mask (index 0), which is the same for every recording, and the level (index 4).
    adaptive = weights[1:4]
    arrays = [DiskArray(len(priors.static_db), scratch_dir) if share > 0 else None for share in adaptive]
    sums = [np.zeros(len(priors.static_db)) for _ in arrays]
    activity, n_audible = [], 0
    remaining_db = DiskArray(len(priors.static_db), scratch_dir) if with_remaining else None

    def compute(segment: Segment) -> tuple[PriorFeatures, Sequence[Levels | None], Levels | None]:
        with_pitch = any(adaptive) or with_remaining
        features = _read_features(segment, analysis, priors, with_pitch=with_pitch)
        core = segment.core
        adapted = priors.adaptive_masks(features, weights)
        remaining = priors.remaining_mask(features, adapted) if with_remaining else None
        masks = [
            None if mask is None else np.ascontiguousarray(mask[:, core]) for mask in (*adapted, remaining)
        ]
        rows_db, fine, audible, activity = features
        of_core = PriorFeatures(rows_db[:, core], fine[:, core], audible[core], activity[core])
        return of_core, masks[:-1], masks[-1]

    segments = split_segments(analysis.rows_db.frames, _PRIOR_SEGMENT_FRAMES, _PRIOR_MARGIN_FRAMES)
    for features, masks, remaining in parallel_map(compute, segments):
        n_audible += int(features.audible.sum())
        activity.append(features.activity)
        if remaining_db is not None and remaining is not None:
            remaining_db.append(remaining)
        for array, total, mask in zip(arrays, sums, masks, strict=True):
            if array is not None and mask is not None:
                array.append(mask)
                total += mask[:, features.audible].sum(axis=1)
    # Means over the audible frames of the whole recording, which shrinkage needs.
    means = [
        None if array is None else (total / n_audible).astype(np.float32)
        for array, total in zip(arrays, sums, strict=True)
    ]
    return _Suggestions(arrays, means, np.concatenate(activity), remaining_db)


def _read_features(
    segment: Segment, analysis: Analysis, priors: Priors, *, with_pitch: bool
) -> PriorFeatures:
    """Return the features of a segment, margins included; pitches only if a prior needs them."""
    start, stop = segment.padded_start, segment.padded_stop
    rows_db = analysis.rows_db.read(start, stop)
    # Pitch frames last PITCH_HOP_RATIO frames: start is rounded down and stop up.
    fine = np.zeros((N_PITCH_BINS, stop - start), dtype=np.float32)
    if with_pitch:
        power = analysis.pitches.read(start // PITCH_HOP_RATIO, -(-stop // PITCH_HOP_RATIO))
        fine = remove_envelope(power, analysis.levels.pitch_power, stop - start)
    return priors.source.prior_features(Features(rows_db, fine), analysis.levels)


def require_predictor(model: Model) -> Predictor:
    """Return a model's predictor; ModelError if it has none."""
    if model.predictor is None:
        raise ModelError(
            f"{printable(model.name)} has no predictor: add one with train --predictor --onto, or use "
            "--method search"
        )
    return model.predictor


def predict_departure(analysis: Analysis, model: Model, scratch_dir: Path | None) -> TimeSeries:
    """Predict the difference [row, frame] in dB between a search's result and the prior."""
    departures = DiskArray(analysis.rows_db.rows, scratch_dir)
    chunks = read_segments(analysis.rows_db, _PRIOR_SEGMENT_FRAMES)
    for prediction in require_predictor(model).predict_chunks(chunks):
        departures.append(prediction.departure_db)
    return departures


def predict_mask(
    source: AudioSource, model: Model, max_gain_db: float, scratch_dir: Path | None = None
) -> Mask:
    """Predict the mask of a recording in one pass.

    The recording is analysed at its own rate, as a stream is, or at the analysis rate if that is higher.
    """
    predictor, spectrum = require_predictor(model), model.settings.spectrum
    rate = max(source.rate, spectrum.rate)
    _, hop, _ = scale_to_rate(spectrum, rate)
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    gains = DiskArray(len(hz), scratch_dir)
    for prediction in predictor.predict_chunks(iter_features(source, model)):
        mask = Mask(prediction.mask_db, hz, hop / rate, spectrum.rate / 2)
        gains.append(mask.clip(max_gain_db).quantize().gain_db)
    return Mask(gains, hz, hop / rate, spectrum.rate / 2)


def iter_features(source: AudioSource, model: Model) -> Iterator[Levels]:
    """Yield a recording's levels [row, frame] in dB, analysed at its own rate, chunk by chunk."""
    spectrum = model.settings.spectrum
    # Never below the analysis rate, because the bands reach up to half of it.
    rate = max(source.rate, spectrum.rate)
    _, hop, _ = scale_to_rate(spectrum, rate)
    mono = resample_blocks((to_mono(block) for block in source.blocks()), source.rate, rate)

    # Chunks overlap by whole frames, so that frames stay where they are in the recording.
    def analyse(chunk: Chunk) -> Levels:
        rows, start = features_at_rate(chunk.samples, rate, model), chunk.left_margin // hop
        return rows[:, start:] if chunk.is_last else rows[:, start : start + chunk.core_size // hop]

    chunks = overlapping_chunks(mono, _PREDICTOR_CHUNK_FRAMES * hop, _PREDICTOR_MARGIN_FRAMES * hop)
    return parallel_map(analyse, chunks)


def features_at_rate(mono: Samples, rate: int, model: Model) -> Levels:
    """Return levels [row, frame] in dB of mono samples (samples,), analysed at their own rate."""
    bands, spectrum = model.settings.scorer.bands, model.settings.spectrum
    return band_levels(mono, rate, bands, spectrum)
