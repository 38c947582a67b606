"""The search for the mask of one part of a recording."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tonewood.masking.mask import Field
from tonewood.masking.notes import scatter
from tonewood.masking.objective import ScoreFunction
from tonewood.masking.optimise import Cells, Listen, NoteGains, Parametrisation, Step, search
from tonewood.scoring.guide import Guide
from tonewood.scoring.scorer import Scorer
from tonewood.settings import BandSettings, EnhanceSettings, Method, SpectrumSettings
from tonewood.signal.bands import band_levels, centres_hz
from tonewood.signal.spectrum import Floats, refiltered
from tonewood.signal.tracks import Span

LISTENING_MARGIN = 16  # frames that a rendering, and the analysis of it, reach


@contextmanager
def moved(device: str, *networks: nn.Module | None) -> Iterator[None]:
    """Networks on a device, while it lasts."""
    taken = [it for it in networks if it is not None]
    try:
        for network in taken:
            network.to(device)
        yield
    finally:
        for network in taken:
            network.cpu()


class Scale(NamedTuple):
    """Rows that a mask lives on, and what listens to it.

    Parameters
    ----------
    bands : BandSettings
    hz : float64 array (row,)
    score : ScoreFunction
        Of [batch, row, frame] in dB.
    """

    bands: BandSettings
    hz: Floats
    score: ScoreFunction


def scale_of(scorer: Scorer, spectrum: SpectrumSettings, method: Method) -> Scale:
    """Rows for a method: the scorer's, or for `paper` the spectrogram's own bins."""
    bands = scorer.settings.bands
    if method == "paper":
        bands = bands.model_copy(update={"scale": "linear"})
        return Scale(bands, centres_hz(bands, spectrum), scorer)
    return Scale(bands, centres_hz(bands, spectrum), scorer.score)


class Part(NamedTuple):
    """What is known of a part of a recording, its margins included.

    Parameters
    ----------
    span : Span
        Frames.
    levels_db, anchor_db : Tensor [row, frame]
    ahead_db : Tensor [row, frame], optional
        How far from the anchor the search is expected to end.
    wave : Tensor [sample], optional
        At the analysis rate; none where nothing is listened to.
    """

    span: Span
    levels_db: Tensor
    anchor_db: Tensor
    ahead_db: Tensor | None
    wave: Tensor | None


@dataclass(frozen=True, eq=False)
class PartSearch:
    """Searches the mask of a part of a recording; the part alone decides.

    Parameters
    ----------
    scorer : Scorer
    guide : Guide, optional
    untaught : bool
        The model has no priors.
    spectrum : SpectrumSettings
    settings : EnhanceSettings
    level_db, loudest_db : float
        Of the recording: mean as the prior corrects it; loudest frame.
    stop_score : float, optional
    frames : int
        Of the whole recording.
    device : str
    """

    scorer: Scorer
    guide: Guide | None
    untaught: bool
    spectrum: SpectrumSettings
    settings: EnhanceSettings
    level_db: float
    loudest_db: float
    stop_score: float | None
    frames: int
    device: str

    def steps(self, part: Part) -> Iterator[Step]:
        """Steps of a part's search, as they are taken."""
        settings, span = self.settings, part.span
        scale = scale_of(self.scorer, self.spectrum, settings.method)
        generator = torch.Generator().manual_seed(settings.seed + span.first)
        anchor_db = part.anchor_db.to(self.device)
        begin_db = anchor_db
        if part.ahead_db is not None:  # where the search is expected to end
            begin_db = anchor_db + part.ahead_db.to(self.device)
        energy = None
        if self.guide is not None:
            energy = partial(self.guide.energy, level_db=self.level_db)
        listen = None
        if part.wave is not None:
            listen = listener(part.wave.to(self.device), scale, self.spectrum)
        found = search(
            scale.score,
            part.levels_db.to(self.device),
            self._start(begin_db, scale.hz, generator),
            anchor_db,
            settings.search,
            window_frames=self.scorer.crop_frames,
            max_gain_db=settings.render.max_gain_db,
            generator=generator,
            energy=energy,
            listen=listen,
            loudest_db=self.loudest_db,
            stop_score=self.stop_score,
        )
        for step in found:
            own = step.mask_db[:, span.inner]
            yield replace(step, mask_db=own, first=span.first, frames=self.frames)

    def _start(
        self, anchor_db: Tensor, row_hz: Floats, generator: torch.Generator
    ) -> Parametrisation:
        """What turns: cells from the prior on, random cells, or the gains of random notes."""
        device, prior = anchor_db.device, self.settings.prior
        if prior.kind == "random":
            noise = torch.randn(anchor_db.shape, generator=generator) * prior.random_db
            return Cells(noise.to(device))
        smooth = self.spectrum.frames(self.settings.search.smooth_ms / 1000)
        if prior.kind == "none":
            # A prior is smooth already, and listeners gave none.
            return Cells(anchor_db, max(1, smooth) if self.untaught else 1)
        if prior.kind != "blocks":
            return Cells(anchor_db, smooth)
        laid, hop = prior.notes, self.spectrum.hop / self.spectrum.rate
        frame_s = torch.arange(anchor_db.shape[1]) * hop
        scattered = scatter(laid, len(frame_s) * hop, self.spectrum.rate / 2, generator)
        hz = torch.from_numpy(row_hz).float()
        return NoteGains(scattered, hz, frame_s, laid.smooth_hz, laid.smooth_ms / 1000, str(device))


def listener(wave: Tensor, scale: Scale, spectrum: SpectrumSettings) -> Listen:
    """Ears of the search: a mask on a scale is rendered at the analysis rate and measured.

    Parameters
    ----------
    wave : Tensor [sample]
        What the masks are for, at the analysis rate, on their device.
    """
    hop = spectrum.hop / spectrum.rate
    through = refiltered(wave[None], spectrum.rate, spectrum)

    def listen(mask_db: Tensor) -> Tensor:
        made = through(Field(mask_db, scale.hz, hop, spectrum.rate / 2).at)[0]
        levels = band_levels(made, spectrum.rate, scale.bands, spectrum)
        return levels[:, : mask_db.shape[1]]

    return listen
