"""The search for the mask of one part of a recording.

The mask in one pass: what a model's predictor makes of a recording.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tonewood.audio_io.reader import resample_blocks, to_mono
from tonewood.dsp.chunking import Chunk, Segment, overlapping_chunks
from tonewood.dsp.filterbank import band_levels, center_frequencies
from tonewood.dsp.stft import prepare_filter, scale_to_rate
from tonewood.enhancement.analysis import AudioSource
from tonewood.errors import ModelError, printable
from tonewood.mask.mask import LazyMask, Mask, TensorMask
from tonewood.mask.search import (
    FreeMask,
    Parametrisation,
    RenderFeedback,
    ScoreFunction,
    SearchStep,
    StickyNoteGains,
    scatter_sticky_notes,
    search_mask,
)
from tonewood.model.model import Model
from tonewood.priors.predictor import Predictor
from tonewood.scorer.guide import Guide
from tonewood.scorer.network import Scorer
from tonewood.setting_types import EnhanceMethod
from tonewood.settings import BandSettings, EnhanceSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray, Samples
from tonewood.utils.disk_array import DiskArray
from tonewood.utils.parallel import parallel_map

RENDER_FEEDBACK_MARGIN = 16  # frames that a rendering, and the analysis of it, reach


@contextmanager
def on_device(device: str, *networks: nn.Module | None) -> Iterator[None]:
    """Networks on a device, while it lasts."""
    taken = [it for it in networks if it is not None]
    try:
        for network in taken:
            network.to(device)
        yield
    finally:
        for network in taken:
            network.cpu()


class MaskScale(NamedTuple):
    """Rows that a mask lives on, and what listens to it.

    Parameters
    ----------
    bands : BandSettings
    hz : float64 array (row,)
    score : ScoreFunction
        Of [batch, row, frame] in dB.
    """

    bands: BandSettings
    hz: FloatArray
    score: ScoreFunction


def mask_scale(scorer: Scorer, spectrum: SpectrumSettings, method: EnhanceMethod) -> MaskScale:
    """Rows for a method: the scorer's, or for `paper` the spectrogram's own bins."""
    bands = scorer.settings.bands
    if method == "paper":
        bands = bands.model_copy(update={"scale": "linear"})
        return MaskScale(bands, center_frequencies(bands, spectrum), scorer)
    return MaskScale(bands, center_frequencies(bands, spectrum), scorer.score)


class SearchSegment(NamedTuple):
    """What is known of a part of a recording, its margins included.

    Parameters
    ----------
    span : Segment
        Frames.
    levels_db, prior_db : Tensor [row, frame]
    departure_db : Tensor [row, frame], optional
        How far from the anchor the search is expected to end.
    wave : Tensor [sample], optional
        At the analysis rate; none where nothing is listened to.
    """

    span: Segment
    levels_db: Tensor
    prior_db: Tensor
    departure_db: Tensor | None
    wave: Tensor | None


@dataclass(frozen=True, eq=False)
class SegmentSearch:
    """Searches the mask of a part of a recording; the part alone decides.

    Parameters
    ----------
    scorer : Scorer
    guide : Guide, optional
    without_priors : bool
        The model has no priors.
    spectrum : SpectrumSettings
    settings : EnhanceSettings
    level_db, loudest_db : float
        Of the recording: mean as the prior corrects it; loudest frame.
    stop_score : float, optional
    total_frames : int
        Of the whole recording.
    device : str
    """

    scorer: Scorer
    guide: Guide | None
    without_priors: bool
    spectrum: SpectrumSettings
    settings: EnhanceSettings
    level_db: float
    loudest_db: float
    stop_score: float | None
    total_frames: int
    device: str

    def steps(self, segment: SearchSegment) -> Iterator[SearchStep]:
        """Steps of a part's search, as they are taken."""
        settings, span = self.settings, segment.span
        scale = mask_scale(self.scorer, self.spectrum, settings.method)
        generator = torch.Generator().manual_seed(settings.seed + span.start)
        anchor_db = segment.prior_db.to(self.device)
        begin_db = anchor_db
        if segment.departure_db is not None:  # where the search is expected to end
            begin_db = anchor_db + segment.departure_db.to(self.device)
        energy = None
        if self.guide is not None:
            energy = partial(self.guide.energy, level_db=self.level_db)
        listen = None
        if segment.wave is not None:
            listen = render_feedback(segment.wave.to(self.device), scale, self.spectrum)
        found = search_mask(
            scale.score,
            segment.levels_db.to(self.device),
            self._initial_parametrisation(begin_db, scale.hz, generator),
            anchor_db,
            settings.search,
            window_frames=self.scorer.crop_frames,
            max_gain_db=settings.render.max_gain_db,
            generator=generator,
            guide_energy=energy,
            render_feedback=listen,
            loudest_db=self.loudest_db,
            stop_score=self.stop_score,
        )
        for step in found:
            own = step.mask_db[:, span.core]
            yield replace(step, mask_db=own, offset=span.start, total_frames=self.total_frames)

    def _initial_parametrisation(
        self, start_db: Tensor, row_hz: FloatArray, generator: torch.Generator
    ) -> Parametrisation:
        """What turns: cells from the prior on, random cells, or the gains of random notes."""
        device, prior = start_db.device, self.settings.prior
        if prior.kind == "random":
            noise = torch.randn(start_db.shape, generator=generator) * prior.random_db
            return FreeMask(noise.to(device))
        smooth = self.spectrum.to_frames(self.settings.search.smooth_ms / 1000)
        if prior.kind == "none":
            # A prior is smooth already, and listeners gave none.
            return FreeMask(start_db, max(1, smooth) if self.without_priors else 1)
        if prior.kind != "blocks":
            return FreeMask(start_db, smooth)
        laid, hop = prior.notes, self.spectrum.hop / self.spectrum.rate
        frame_s = torch.arange(start_db.shape[1]) * hop
        scattered = scatter_sticky_notes(laid, len(frame_s) * hop, self.spectrum.rate / 2, generator)
        hz = torch.from_numpy(row_hz).float()
        return StickyNoteGains(scattered, hz, frame_s, laid.smooth_hz, laid.smooth_ms / 1000, str(device))


def render_feedback(wave: Tensor, scale: MaskScale, spectrum: SpectrumSettings) -> RenderFeedback:
    """Ears of the search: a mask on a scale is rendered at the analysis rate and measured.

    Parameters
    ----------
    wave : Tensor [sample]
        What the masks are for, at the analysis rate, on their device.
    """
    hop = spectrum.hop / spectrum.rate
    through = prepare_filter(wave[None], spectrum.rate, spectrum)

    def listen(mask_db: Tensor) -> Tensor:
        made = through(TensorMask(mask_db, scale.hz, hop, spectrum.rate / 2).gain_at)[0]
        levels = band_levels(made, spectrum.rate, scale.bands, spectrum)
        return levels[:, : mask_db.shape[1]]

    return listen


_PREDICTOR_CHUNK_FRAMES, _PREDICTOR_MARGIN_FRAMES = 1_024, 4


def require_predictor(model: Model) -> Predictor:
    """Predictor of a model; ModelError if it has none."""
    if model.predictor is None:
        raise ModelError(
            f"{printable(model.name)} has no predictor: add one with train --predictor --onto, or use "
            "--method search"
        )
    return model.predictor


def predict_mask(
    source: AudioSource, model: Model, max_gain_db: float, scratch_dir: Path | None = None
) -> LazyMask:
    """Mask that the predictor makes of a recording, at any rate.

    It is analysed at its own rate, as a stream is, unless that is below the analysis rate.
    """
    predictor, spectrum = require_predictor(model), model.settings.spectrum
    rate = max(source.rate, spectrum.rate)
    _, hop, _ = scale_to_rate(spectrum, rate)
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    gains = DiskArray(len(hz), scratch_dir)
    for foreseen in predictor.predict_chunks(iter_features(source, model)):
        part = Mask(foreseen.mask_db.numpy(), hz, hop / rate, spectrum.rate / 2)
        gains.append(part.clip(max_gain_db).quantize().gain_db)
    return LazyMask(gains, hz, hop / rate, spectrum.rate / 2)


def iter_features(source: AudioSource, model: Model) -> Iterator[Tensor]:
    """Rows [row, frame] of a recording, part by part, analysed at its own rate."""
    spectrum = model.settings.spectrum
    rate = max(source.rate, spectrum.rate)
    _, hop, _ = scale_to_rate(spectrum, rate)
    mono = resample_blocks((to_mono(block) for block in source.blocks()), source.rate, rate)

    def analysed(piece: Chunk[Samples]) -> Tensor:
        rows, first = features_at_rate(piece.samples, rate, model), piece.left_margin // hop
        return rows[:, first:] if piece.is_last else rows[:, first : first + piece.core_size // hop]

    return parallel_map(
        analysed,
        overlapping_chunks(mono, _PREDICTOR_CHUNK_FRAMES * hop, _PREDICTOR_MARGIN_FRAMES * hop),
    )


def features_at_rate(mono: NDArray[np.float32], rate: int, model: Model) -> Tensor:
    """Row levels [row, frame] in dB of a mono waveform (samples,), analysed at its own rate."""
    bands, spectrum = model.settings.scorer.bands, model.settings.spectrum
    return band_levels(torch.from_numpy(mono), rate, bands, spectrum)
