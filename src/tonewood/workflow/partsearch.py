"""The search for the mask of one part of a recording."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tonewood.masking.mask import TensorMask
from tonewood.masking.notes import scatter_sticky_notes
from tonewood.masking.objective import ScoreFunction
from tonewood.masking.optimise import FreeMask, RenderFeedback, StickyNoteGains, Parametrisation, SearchStep, search_mask
from tonewood.scoring.guide import Guide
from tonewood.scoring.scorer import Scorer
from tonewood.settings import BandSettings, EnhanceSettings, EnhanceMethod, SpectrumSettings
from tonewood.signal.bands import band_levels, center_frequencies
from tonewood.signal.spectrum import FloatArray, prepare_filter
from tonewood.signal.tracks import Segment

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
