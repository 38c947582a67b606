"""A recording and a model → the recording, reshaped."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.files.audio import resample
from tonewood.files.modelfile import Model
from tonewood.masking.certify import Certificate, Change, certify
from tonewood.masking.mask import Mask
from tonewood.masking.notes import scatter
from tonewood.masking.objective import ScoreFunction
from tonewood.masking.optimise import Cells, Listen, NoteGains, Parametrisation, Step, search
from tonewood.masking.render import Rendered, rendered
from tonewood.scoring.scorer import Scorer
from tonewood.scoring.training import score_windows
from tonewood.settings import EnhanceSettings, Method, PriorKind, SearchSettings, changed
from tonewood.signal.bands import band_levels, centres_hz
from tonewood.signal.features import analyse
from tonewood.signal.spectrum import Floats, filtered
from tonewood.workflow.opinions import adapted, doubts


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
    certificate : Certificate
        Scores of input and output, 0 sounds like the reference; what the mask really did.
    rendered : Rendered
        Loudness and gain.
    settings : EnhanceSettings
        As asked for.
    """

    samples: NDArray[np.float32]
    rate: int
    mask: Mask
    prior: str
    steps: int
    certificate: Certificate
    rendered: Rendered
    settings: EnhanceSettings

    @property
    def scorer(self) -> Change:
        """Score of the input and of the output."""
        return self.certificate.scorer

    @property
    def judge(self) -> Change | None:
        """The judge's."""
        return self.certificate.judge


def enhance(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    settings: EnhanceSettings,
    *,
    device: str = "cpu",
) -> Iterator[Step | Enhancement]:
    """Find a mask at the analysis rate and apply it at the recording's own.

    Yields every `Step` of the search and, last, the `Enhancement`. An input unlike the source
    folder gets the static mask if the scorer takes it for a source all the same, else none,
    unless `settings.force` says otherwise.

    Parameters
    ----------
    samples : float32 array (channels, samples)
    rate : int
        Hz.
    """
    wave = mono_at(samples, rate, model)
    rows = rows_of(wave, model)
    unlikeness = model.source_likeness.unlikeness(rows)
    before = mean_score(model.scorer, rows)
    used = adapted(settings, model)
    if unlikeness > 1 and not settings.force and settings.method == "search":
        static = before >= 0.5 and model.learnt_priors is not None
        used = changed(
            settings,
            [f"prior.kind={'static' if static else 'none'}", "search.steps=0"],
        )
    grid = grid_of(wave, model, used.method)
    step: Step | None = None
    for step in find_mask(wave, grid, model, used, device=device):
        yield step
    assert step is not None
    spectrum = model.settings.spectrum
    mask = Mask(
        step.mask_db.cpu().numpy(), grid.hz, spectrum.hop / spectrum.rate, spectrum.rate / 2
    )
    mask = mask.bounded(used.render.max_gain_db).rounded()
    made = rendered(samples, rate, mask, used.render, spectrum)
    after = rows_of(mono_at(made.samples, rate, model), model)
    scorer = Change(before=before, after=mean_score(model.scorer, after))
    judge = fooled = None
    if model.judge is not None:
        judge = Change(before=mean_score(model.judge, rows), after=mean_score(model.judge, after))
        fooled = fooled_judge(rows, model, model.judge, used)
    certificate = certify(
        scorer=scorer,
        judge=judge,
        judge_rows=partial(mean_score, model.judge) if model.judge is not None else None,
        judge_fooled=fooled,
        rows_db=rows,
        mask_db=_on_rows(mask, model, rows.shape[1]) * settings.render.amount,
        roughness_db=mask.roughness_db * settings.render.amount,
        unlikeness=unlikeness,
        unlike_reference=Change(
            before=model.reference_likeness.unlikeness(rows),
            after=model.reference_likeness.unlikeness(after),
        ),
        settings=settings.certificate,
        doubts=doubts(model),
    )
    yield Enhancement(
        samples=made.samples,
        rate=rate,
        mask=mask,
        prior=used.prior.kind,
        steps=step.number,
        certificate=certificate,
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
    levels_of : callable
        Levels [row, frame] of a mono waveform [sample] at the analysis rate.
    """

    levels_db: Tensor
    hz: Floats
    score: ScoreFunction
    levels_of: Callable[[Tensor], Tensor]


def grid_of(wave: Tensor, model: Model, method: Method) -> Grid:
    """Grid for a method: the scorer's rows, or for `paper` the spectrogram's own bins."""
    spectrum, bands = model.settings.spectrum, model.settings.scorer.bands
    if method == "paper":
        bands = bands.model_copy(update={"scale": "linear"})

    def levels_of(sound: Tensor) -> Tensor:
        return band_levels(sound, spectrum.rate, bands, spectrum)

    score = model.scorer if method == "paper" else model.scorer.score
    return Grid(levels_of(wave), centres_hz(bands, spectrum), score, levels_of)


def find_mask(
    wave: Tensor, grid: Grid, model: Model, settings: EnhanceSettings, *, device: str = "cpu"
) -> Iterator[Step]:
    """Search a mask for a mono waveform [sample] at the analysis rate; the last step has it."""
    generator = torch.Generator().manual_seed(settings.seed)
    kind = settings.prior.kind
    if kind in ("none", "random", "blocks"):
        start = _drawn(kind, grid, model, settings, generator, device)
        anchor = torch.zeros_like(grid.levels_db)  # the paper's ‖X_inp - X_t‖²
    else:
        anchor = prior_mask(kind, wave, grid, model)
        smooth = model.settings.spectrum.frames(settings.search.smooth_ms / 1000)
        start = Cells(anchor.to(device), smooth)
    searching = settings.search
    if searching.guide is None:
        searching = searching.model_copy(update={"guide": model.guide_weight})
    guided = settings.method == "search" and bool(searching.guide)
    stop = model.card.scorer.reference_scores.median
    guide = model.guide if guided else None
    model.scorer.to(device)
    if guide is not None:
        guide.to(device)
    try:
        yield from search(
            grid.score,
            grid.levels_db.to(device),
            start,
            anchor.to(device),
            searching,
            window_frames=model.scorer.crop_frames,
            max_gain_db=settings.render.max_gain_db,
            generator=generator,
            energy=guide.energy if guide is not None else None,
            listen=listener(wave, grid, model) if searching.listen and searching.steps else None,
            stop_score=stop if searching.stop_at_reference and searching.score else None,
        )
    finally:
        model.scorer.cpu()
        if guide is not None:
            guide.cpu()


def listener(wave: Tensor, grid: Grid, model: Model) -> Listen:
    """Ears of the search: a mask on the grid is rendered at the analysis rate and measured."""
    spectrum = model.settings.spectrum
    hop = spectrum.hop / spectrum.rate

    def listen(mask_db: Tensor) -> Tensor:
        mask = Mask(mask_db.cpu().numpy(), grid.hz, hop, spectrum.rate / 2)
        made = filtered(wave.numpy()[None], spectrum.rate, mask.at, spectrum)[0]
        return grid.levels_of(torch.from_numpy(made)).to(mask_db)

    return listen


def fooled_judge(
    rows_db: Tensor, model: Model, judge: Scorer, settings: EnhanceSettings
) -> float | None:
    """Judge of what a search from random pixels, without any penalty, makes of the recording.

    The control of the paper's figure 1: how far a mask that is no EQ could have fooled the judge.
    """
    limits = settings.certificate
    if limits.control_steps == 0:
        return None
    excerpt = rows_db[:, : model.settings.spectrum.frames(limits.control_seconds)]
    generator = torch.Generator().manual_seed(settings.seed)
    start = torch.randn(excerpt.shape, generator=generator) * settings.prior.random_db
    free = SearchSettings(
        score=1.0, guide=0.0, alpha=0.0, steps=limits.control_steps, optimiser="Adam"
    )
    steps = search(
        model.scorer.score,
        excerpt,
        Cells(start),
        torch.zeros_like(excerpt),
        free,
        window_frames=model.scorer.crop_frames,
        max_gain_db=settings.render.max_gain_db,
        generator=generator,
    )
    *_, last = steps
    return mean_score(judge, excerpt + last.mask_db)


def prior_mask(kind: PriorKind, wave: Tensor, grid: Grid, model: Model) -> Tensor:
    """Mask [row, frame] in dB on a grid that the model's statistics suggest."""
    spectrum, bands = model.settings.spectrum, model.settings.scorer.bands
    features = analyse(wave, bands, spectrum)
    gain = model.priors.mask(features, kind)
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
        # A prior is smooth already, and listeners gave none.
        smooth = settings.search.smooth_ms / 1000 if model.learnt_priors is None else 0.0
        nothing = torch.zeros_like(grid.levels_db, device=device)
        return Cells(nothing, max(1, model.settings.spectrum.frames(smooth)))
    if kind == "random":
        noise = torch.randn(grid.levels_db.shape, generator=generator) * settings.prior.random_db
        return Cells(noise.to(device))
    spectrum, laid = model.settings.spectrum, settings.prior.notes
    hop = spectrum.hop / spectrum.rate
    frame_s = torch.arange(grid.levels_db.shape[1]) * hop
    scattered = scatter(laid, len(frame_s) * hop, spectrum.rate / 2, generator)
    row_hz = torch.from_numpy(grid.hz).float()
    return NoteGains(scattered, row_hz, frame_s, laid.smooth_hz, laid.smooth_ms / 1000, device)


def rows_of(wave: Tensor, model: Model) -> Tensor:
    """Row levels [row, frame] in dB of a mono waveform [sample] at the analysis rate."""
    spectrum = model.settings.spectrum
    return band_levels(wave, spectrum.rate, model.settings.scorer.bands, spectrum)


def mean_score(scorer: Scorer, rows_db: Tensor) -> float:
    """Mean score of a recording's audible windows."""
    return float(score_windows(scorer, rows_db).mean())


def _on_rows(mask: Mask, model: Model, frames: int) -> Tensor:
    """The mask's gains [row, frame] on the scorer's rows, whatever grid it lives on."""
    hz = centres_hz(model.settings.scorer.bands, model.settings.spectrum)
    return torch.from_numpy(mask.at(hz, np.arange(frames) * mask.hop_seconds))
