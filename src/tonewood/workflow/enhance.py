"""A recording and a model → the recording, reshaped."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import AudioError
from tonewood.files.audio import mono_of, resample
from tonewood.files.modelfile import Model
from tonewood.files.spool import Spool
from tonewood.masking.certify import Certificate, Change, certify
from tonewood.masking.mask import LongMask, Mask
from tonewood.masking.optimise import Step
from tonewood.masking.render import Matching, Rendered, in_force
from tonewood.scoring.scorer import Scorer
from tonewood.scoring.training import score_track
from tonewood.settings import EnhanceSettings, SpectrumSettings, changed
from tonewood.signal.bands import band_levels, centres_hz
from tonewood.signal.tracks import Made, Track, spans
from tonewood.workflow import notebook
from tonewood.workflow.hearing import (
    Heard,
    InMemory,
    Sound,
    listen,
)
from tonewood.workflow.making import make
from tonewood.workflow.mask import Found, find_mask, fooled_judge
from tonewood.workflow.opinions import adapted, doubts
from tonewood.workflow.partsearch import moved
from tonewood.workflow.predict import predicted_mask

_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class Enhancement:
    """A reshaped recording, and what was done to it.

    Parameters
    ----------
    samples : float32 array (channels, samples)
    rate : int
        Hz, the input's.
    mask : Mask
        As found; `applied` is what `settings.render` takes of it on rendering.
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
    spectrum : SpectrumSettings
        The model's analysis, by which the mask was found and applied.
    """

    samples: NDArray[np.float32]
    rate: int
    mask: Mask
    prior: str
    steps: int
    certificate: Certificate
    rendered: Rendered
    settings: EnhanceSettings
    spectrum: SpectrumSettings

    @property
    def applied(self) -> Mask:
        """What was applied of the mask: the aspect that is wanted, times the amount."""
        return in_force(LongMask.of(self.mask), self.settings.render, self.spectrum).whole()

    def _repr_html_(self) -> str:
        """What came of it, for notebooks: verdict, player, spectrogram, mask."""
        score, judge = self.scorer, self.judge
        rows = [
            ("verdict", self.certificate.line),
            ("score", f"{score.before:.2f} → {score.after:.2f} (0 sounds like the reference)"),
            ("judge", f"{judge.before:.2f} → {judge.after:.2f}" if judge else "none"),
            ("prior", f"{self.prior}, {self.steps} steps of search"),
        ]
        return (
            notebook.table(rows)
            + notebook.player(self.samples, self.rate)
            + notebook.spectrogram(self.samples, self.rate, self.spectrum)
            + self.applied._repr_html_()
        )

    @property
    def scorer(self) -> Change:
        """Score of the input and of the output."""
        return self.certificate.scorer

    @property
    def judge(self) -> Change | None:
        """The judge's."""
        return self.certificate.judge


@dataclass(frozen=True, eq=False)
class Reshaped:
    """A recording of any length, reshaped; its sound and its mask are kept on disk.

    Parameters
    ----------
    before, after : Heard
        The input and the output.
    mask : LongMask
        As found; `applied` is what `settings.render` takes of it on rendering.
    prior : str
        Prior that was used.
    steps : int
        Steps that the search took.
    certificate : Certificate
    matching : Matching
        Loudness and gain.
    peak : float
        Largest sample of the output, 1 at full scale.
    settings : EnhanceSettings
        As asked for.
    spectrum : SpectrumSettings
        The model's analysis, by which the mask was found and applied.
    """

    before: Heard
    after: Heard
    mask: LongMask
    prior: str
    steps: int
    certificate: Certificate
    matching: Matching
    peak: float
    settings: EnhanceSettings
    spectrum: SpectrumSettings
    _sound: Sound
    _made: Spool | None

    @property
    def applied(self) -> LongMask:
        """As of `Enhancement`."""
        return in_force(self.mask, self.settings.render, self.spectrum)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The output, (channels, samples) at a time."""
        if self._made is None:
            yield from self._sound.blocks()
            return
        for span in spans(self._made.frames, _BLOCK):
            yield self._made.part(span.first, span.last).numpy() * self.matching.factor


def enhance(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    settings: EnhanceSettings,
    *,
    device: str = "cpu",
) -> Iterator[Step | Enhancement]:
    """Reshape a recording in memory; yields every `Step` of the search and, last, the result.

    Parameters
    ----------
    samples : float32 array (channels, samples)
    rate : int
        Hz.
    """
    made: Reshaped | None = None
    for event in reshape(InMemory(samples, rate), model, settings, device=device):
        if isinstance(event, Step):
            yield event
        else:
            made = event
    assert made is not None
    out = samples if settings.render.amount == 0 else np.concatenate(list(made.blocks()), axis=1)
    level = made.matching
    yield Enhancement(
        samples=out,
        rate=rate,
        mask=made.mask.whole(),
        prior=made.prior,
        steps=made.steps,
        certificate=made.certificate,
        rendered=Rendered(
            level.gain_db, level.loudness_before, level.loudness_after, level.held, samples=out
        ),
        settings=settings,
        spectrum=made.spectrum,
    )


def reshape(
    sound: Sound,
    model: Model,
    settings: EnhanceSettings,
    *,
    device: str = "cpu",
    folder: Path | None = None,
) -> Iterator[Step | Reshaped]:
    """Find a mask at the analysis rate and apply it at the recording's own.

    Yields every `Step` of the search and, last, the `Reshaped`. An input unlike the source
    folder gets the static mask if the scorer takes it for a source all the same, else none,
    unless `settings.force` says otherwise.

    Memory does not grow with the recording's length; what is known along its time is kept on disk
    while it is needed.

    Parameters
    ----------
    sound : Sound
    folder : Path, optional
        On whose disk.
    """
    foreseen = settings.prior.kind == "predicted" and settings.search.steps == 0
    heard = listen(sound, model, folder, pitched=not foreseen, device=device)
    check_span(heard.samples / sound.rate, settings)
    unlikeness = model.source_likeness.unlikeness(heard.rows_db)
    used = adapted(settings, model)
    if unlikeness > 1 and not settings.force and settings.method != "paper":
        taken = mean_score(model.scorer, heard.rows_db) >= 0.5  # for a source
        static = taken and model.learnt_priors is not None
        used = changed(
            settings,
            [f"prior.kind={'static' if static else 'none'}", "search.steps=0"],
        )
    if foreseen and used is settings:
        found = Found(predicted_mask(sound, model, used.render.max_gain_db, folder), 0)
    else:
        found = yield from find_mask(heard, model, used, device=device, folder=folder)
    with moved(device, model.scorer, model.judge):
        made = conclude(sound, heard, found, model, settings, used, folder, device)
    yield made


def conclude(
    sound: Sound,
    heard: Heard,
    found: Found,
    model: Model,
    settings: EnhanceSettings,
    used: EnhanceSettings,
    folder: Path | None = None,
    device: str = "cpu",
) -> Reshaped:
    """Render a mask that was found, and certify what it does.

    Parameters
    ----------
    settings, used : EnhanceSettings
        As asked for, and as the mask was found.
    folder, device
        As of `reshape`; scorer and judge are there.
    """
    made = make(sound, heard, found.mask, model, settings.render, folder, device)
    after = made.heard
    judge = fooled = None
    if model.judge is not None:
        judge = Change(
            before=mean_score(model.judge, heard.rows_db),
            after=mean_score(model.judge, after.rows_db),
        )
        fooled = fooled_judge(heard.rows_db, model, model.judge, used)
    force = in_force(found.mask, settings.render, model.settings.spectrum)
    certificate = certify(
        scorer=Change(
            before=mean_score(model.scorer, heard.rows_db),
            after=mean_score(model.scorer, after.rows_db),
        ),
        judge=judge,
        judge_rows=partial(mean_score, model.judge) if model.judge is not None else None,
        judge_fooled=fooled,
        rows_db=heard.rows_db,
        mask_db=_on_rows(force, model, heard.rows_db.frames),
        roughness_db=force.roughness_db,
        unlikeness=model.source_likeness.unlikeness(heard.rows_db),
        unlike_reference=Change(
            before=model.reference_likeness.unlikeness(heard.rows_db),
            after=model.reference_likeness.unlikeness(after.rows_db),
        ),
        settings=settings.certificate,
        doubts=doubts(model),
    )
    return Reshaped(
        before=heard,
        after=after,
        mask=found.mask,
        prior=used.prior.kind,
        steps=found.steps,
        certificate=certificate,
        matching=made.matching,
        peak=made.peak,
        settings=settings,
        spectrum=model.settings.spectrum,
        _sound=sound,
        _made=made.samples,
    )


def check_span(seconds: float, settings: EnhanceSettings) -> None:
    """Raise AudioError if the span that is asked for begins after a recording's end."""
    start = settings.render.aspect.start_s
    if start is not None and start >= seconds:
        raise AudioError(
            f"the recording lasts {seconds:.1f} s; nothing is there to change from {start:g} s on: "
            "name an earlier start"
        )


def mono_at(samples: NDArray[np.float32], rate: int, model: Model) -> Tensor:
    """Mean of the channels [sample] at the model's analysis rate."""
    return torch.from_numpy(resample(mono_of(samples), rate, model.settings.spectrum.rate))


def rows_of(wave: Tensor, model: Model) -> Tensor:
    """Rows [row, frame] that the scorer hears of a waveform [sample] at the analysis rate."""
    spectrum = model.settings.spectrum
    return band_levels(wave, spectrum.rate, model.settings.scorer.bands, spectrum)


def mean_score(scorer: Scorer, rows_db: Track) -> float:
    """Mean score of a recording's audible windows."""
    return float(score_track(scorer, rows_db).mean())


def _on_rows(mask: LongMask, model: Model, frames: int) -> Track:
    """A mask's gains [row, frame] on the scorer's rows and frames, whatever grid it lives on."""
    spectrum = model.settings.spectrum
    hz, hop = centres_hz(model.settings.scorer.bands, spectrum), spectrum.hop / spectrum.rate

    def make(first: int, last: int) -> Tensor:
        return torch.from_numpy(mask.at(hz, np.arange(first, min(last, frames)) * hop))

    return Made(frames, make)
