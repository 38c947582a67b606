"""A recording and a model → the recording, reshaped."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.files.audio import resample
from tonewood.files.modelfile import Model
from tonewood.files.recipe import Change
from tonewood.masking.mask import Mask
from tonewood.masking.notes import scatter
from tonewood.masking.objective import ScoreFunction
from tonewood.masking.optimise import Cells, NoteGains, Parametrisation, Step, search
from tonewood.masking.render import Rendered, rendered
from tonewood.scoring.scorer import Scorer
from tonewood.scoring.training import score_windows
from tonewood.settings import EnhanceSettings, Method, PriorKind
from tonewood.signal.bands import band_levels, centres_hz
from tonewood.signal.features import analyse
from tonewood.signal.spectrum import Floats, log_magnitude, stft


@dataclass(frozen=True, eq=False)
class Enhancement:
    """A reshaped recording, and what was done to it.

    Parameters
    ----------
    samples : float32 array (channels, samples)
    rate : int
        Hz, the input's.
    mask : Mask
        As found; `settings.render.amount` scales it on rendering.
    prior : str
        Prior that was used.
    steps : int
        Steps that the search took.
    scorer, judge : Change
        Scores of input and output, 0 sounds like the reference.
    rendered : Rendered
        Loudness and gain.
    settings : EnhanceSettings
    """

    samples: NDArray[np.float32]
    rate: int
    mask: Mask
    prior: str
    steps: int
    scorer: Change
    judge: Change | None
    rendered: Rendered
    settings: EnhanceSettings


def enhance(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    settings: EnhanceSettings,
    *,
    device: str = "cpu",
) -> Iterator[Step | Enhancement]:
    """Find a mask at the analysis rate and apply it at the recording's own.

    Yields every `Step` of the search and, last, the `Enhancement`.

    Parameters
    ----------
    samples : float32 array (channels, samples)
    rate : int
        Hz.
    """
    wave = mono_at(samples, rate, model)
    grid = grid_of(wave, model, settings.method)
    step: Step | None = None
    for step in find_mask(wave, grid, model, settings, device=device):
        yield step
    assert step is not None
    spectrum = model.settings.spectrum
    mask = Mask(
        step.mask_db.cpu().numpy(), grid.hz, spectrum.hop / spectrum.rate, spectrum.rate / 2
    )
    mask = mask.bounded(settings.render.max_gain_db).rounded()
    made = rendered(samples, rate, mask, settings.render, spectrum)
    after = mono_at(made.samples, rate, model)
    yield Enhancement(
        samples=made.samples,
        rate=rate,
        mask=mask,
        prior=chosen_prior(settings.prior.kind),
        steps=step.number,
        scorer=_change(model, model.scorer, wave, after),
        judge=_change(model, model.judge, wave, after) if model.judge else None,
        rendered=made,
        settings=settings,
    )


class Grid(NamedTuple):
    """Where a mask lives, and what listens to it.

    Parameters
    ----------
    levels_db : Tensor [row, frame]
        The recording.
    hz : float64 array (row,)
    score : ScoreFunction
        Of [batch, row, frame] in dB.
    """

    levels_db: Tensor
    hz: Floats
    score: ScoreFunction


def grid_of(wave: Tensor, model: Model, method: Method) -> Grid:
    """Grid for a method: the scorer's rows, or for `paper` the spectrogram's own bins."""
    spectrum, bands = model.settings.spectrum, model.settings.scorer.bands
    if method == "paper":
        linear = bands.model_copy(update={"scale": "linear"})
        levels = log_magnitude(stft(wave, spectrum), spectrum)
        return Grid(levels, centres_hz(linear, spectrum), model.scorer)
    levels = band_levels(wave, spectrum.rate, bands, spectrum)
    return Grid(levels, centres_hz(bands, spectrum), model.scorer.score)


def find_mask(
    wave: Tensor, grid: Grid, model: Model, settings: EnhanceSettings, *, device: str = "cpu"
) -> Iterator[Step]:
    """Search a mask for a mono waveform [sample] at the analysis rate; the last step has it."""
    generator = torch.Generator().manual_seed(settings.seed)
    kind = chosen_prior(settings.prior.kind)
    if kind in ("none", "random", "blocks"):
        start = _drawn(kind, grid, model, settings, generator, device)
        anchor = torch.zeros_like(grid.levels_db)  # the paper's ‖X_inp - X_t‖²
    else:
        anchor = prior_mask(kind, wave, grid, model)
        smooth = model.settings.spectrum.frames(settings.search.smooth_ms / 1000)
        start = Cells(anchor.to(device), smooth)
    stop = model.card.scorer.reference_scores.median
    model.scorer.to(device)
    try:
        yield from search(
            grid.score,
            grid.levels_db.to(device),
            start,
            anchor.to(device),
            settings.search,
            window_frames=model.scorer.crop_frames,
            max_gain_db=settings.render.max_gain_db,
            generator=generator,
            stop_score=stop if settings.search.stop_at_reference else None,
        )
    finally:
        model.scorer.cpu()


def chosen_prior(kind: PriorKind) -> PriorKind:
    """Prior that `auto` stands for."""
    return "neighbours" if kind == "auto" else kind


def prior_mask(kind: PriorKind, wave: Tensor, grid: Grid, model: Model) -> Tensor:
    """Mask [row, frame] in dB on a grid that the model's statistics suggest."""
    spectrum, bands = model.settings.spectrum, model.settings.scorer.bands
    features = analyse(wave, bands, spectrum)
    if kind == "static":
        gain = model.priors.static(features)
    else:
        gain = model.priors.neighbours(features, spectrum.hop_ms)
    hop = spectrum.hop / spectrum.rate
    mask = Mask(gain.numpy(), centres_hz(bands, spectrum), hop, spectrum.rate / 2)
    return torch.from_numpy(mask.at(grid.hz, np.arange(gain.shape[1]) * hop))


def mono_at(samples: NDArray[np.float32], rate: int, model: Model) -> Tensor:
    """Mean of the channels [sample] at the model's analysis rate."""
    mono = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    return torch.from_numpy(resample(mono, rate, model.settings.spectrum.rate))


def _drawn(
    kind: PriorKind,
    grid: Grid,
    model: Model,
    settings: EnhanceSettings,
    generator: torch.Generator,
    device: str,
) -> Parametrisation:
    """Start that knows nothing of the folders: nothing, random cells, or random notes."""
    if kind == "none":
        return Cells(torch.zeros_like(grid.levels_db, device=device))
    if kind == "random":
        noise = torch.randn(grid.levels_db.shape, generator=generator) * settings.prior.random_db
        return Cells(noise.to(device))
    spectrum, laid = model.settings.spectrum, settings.prior.notes
    hop = spectrum.hop / spectrum.rate
    frame_s = torch.arange(grid.levels_db.shape[1]) * hop
    scattered = scatter(laid, len(frame_s) * hop, spectrum.rate / 2, generator)
    row_hz = torch.from_numpy(grid.hz).float()
    return NoteGains(scattered, row_hz, frame_s, laid.smooth_hz, laid.smooth_ms / 1000, device)


def _change(model: Model, scorer: Scorer, before: Tensor, after: Tensor) -> Change:
    spectrum, bands = model.settings.spectrum, model.settings.scorer.bands
    scores = [
        float(score_windows(scorer, band_levels(wave, spectrum.rate, bands, spectrum)).mean())
        for wave in (before, after)
    ]
    return Change(before=scores[0], after=scores[1])
