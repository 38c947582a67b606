"""Certify a rendered mask: compare the recording before and after it."""

from collections import deque
from functools import partial
from typing import NamedTuple, Self

import numpy as np

from tonewood.dsp.chunking import LazyTimeSeries, TimeSeries
from tonewood.enhancement.analysis import mean_score
from tonewood.mask.certificate import Certificate, Change, Measurements, certify, needs_no_change
from tonewood.mask.search import FreeMask, SearchProblem, search_mask
from tonewood.model.model import Model
from tonewood.scorer.network import Scorer, WindowScore, score_windows
from tonewood.settings import CertificateSettings, EnhanceSettings, SearchSettings
from tonewood.utils.arrays import RandomDraws

_TRIED_AMOUNTS = (0.25, 0.5, 0.75)  # before the whole
_LEAST_CHANGE = 2**-16  # a step of 16 bits; rounding alone is below


class InputMeasurements(NamedTuple):
    """Measurements of an input, valid for all of its renderings; see `Certificate`."""

    scorer: float
    judge: float | None
    judge_fooled: float | None
    unlikeness: float
    unlike_reference: float

    @classmethod
    def of_certificate(cls, certificate: Certificate) -> Self:
        """Take the measurements from the certificate of another rendering."""
        return cls(
            certificate.scorer.before,
            None if certificate.judge is None else certificate.judge.before,
            certificate.judge_fooled,
            certificate.unlikeness,
            certificate.unlike_reference.before,
        )


def measure_input(rows_db: TimeSeries, model: Model, settings: EnhanceSettings) -> InputMeasurements:
    """Measure an input [row, frame] in dB."""
    judge, distances = model.judge, model.folder_distances(rows_db)
    return InputMeasurements(
        scorer=mean_score(model.scorer, rows_db),
        judge=None if judge is None else mean_score(judge, rows_db),
        # A search of its own, so edits take its result from the first certificate (`of_certificate`).
        judge_fooled=None if judge is None else adversarial_judge_score(rows_db, model, judge, settings),
        unlikeness=distances.source,
        unlike_reference=distances.reference,
    )


def sounds_like_reference(certificate: Certificate) -> bool:
    """Return True if the output of a certificate needs no change."""
    judge = None if certificate.judge is None else certificate.judge.after
    return needs_no_change(certificate.scorer.after, judge, certificate.unlike_reference.after)


def least_sufficient_amount(
    rows_db: TimeSeries, mask_db: TimeSeries, certificate: Certificate, model: Model
) -> float:
    """Return the least amount of a correction at which the output sounds like the reference.

    It is 1 if smaller amounts do not suffice, or if the whole does not suffice either.

    Parameters
    ----------
    rows_db, mask_db : TimeSeries [row, frame]
        Levels of the input, and the mask, in dB. Amounts are tried on their sum, not on renderings.
    certificate : Certificate
        Of the output at amount 1.
    """
    if not (model.has_graded_scorer and sounds_like_reference(certificate)):
        return 1.0

    def change(amount: float) -> TimeSeries:
        return LazyTimeSeries(
            min(rows_db.frames, mask_db.frames),
            lambda start, stop: rows_db.read(start, stop) + np.float32(amount) * mask_db.read(start, stop),
        )

    for amount in _TRIED_AMOUNTS:
        levels = change(amount)
        judge = None if model.judge is None else mean_score(model.judge, levels)
        distance = model.folder_distances(levels).reference
        if needs_no_change(mean_score(model.scorer, levels), judge, distance):
            return amount
    return 1.0


class RenderedMask(NamedTuple):
    """A mask as applied, on the scorer's rows [row, frame], with the input's and the output's levels.

    Roughness is measured on the mask's own grid.
    """

    mask_db: TimeSeries
    roughness_db: float
    input_db: TimeSeries
    output_db: TimeSeries


def certify_share(
    applied: RenderedMask,
    whole: RenderedMask | None,
    share: str | None,
    change: float,
    before: InputMeasurements,
    model: Model,
    settings: CertificateSettings,
) -> Certificate:
    """Certify an output to which a share of a correction was applied, by the whole correction.

    Parameters
    ----------
    whole : RenderedMask or None
        None if the output has the whole correction.
    share : str or None
        The share in words.
    change : float
        Largest difference between output and input before the loudness is matched; the input's peak is 1.
    """
    certificate = certify_rendering(applied, before, model, settings)
    if change < _LEAST_CHANGE and certificate.verdict in ("good", "limited"):
        return certificate.unchanged(share)
    if share is None:
        return certificate
    if whole is None:
        return certificate.model_copy(update={"share": share})
    return certify_rendering(whole, before, model, settings).of_share(share, certificate)


def certify_rendering(
    rendered: RenderedMask, before: InputMeasurements, model: Model, settings: CertificateSettings
) -> Certificate:
    """Measure an output and certify it."""
    judge = None
    if model.judge is not None and before.judge is not None:
        judge = Change(before=before.judge, after=mean_score(model.judge, rendered.output_db))
    measurements = Measurements(
        scorer=Change(before=before.scorer, after=mean_score(model.scorer, rendered.output_db)),
        judge=judge,
        judge_fooled=before.judge_fooled,
        roughness_db=rendered.roughness_db,
        unlikeness=before.unlikeness,
        unlike_reference=Change(
            before=before.unlike_reference, after=model.reference_likeness.distance(rendered.output_db)
        ),
        caveats=listener_caveats(model),
        has_graded_scorer=model.has_graded_scorer,
    )
    # The judge also scores smoothed and static versions of the mask.
    judge_score = partial(mean_score, model.judge) if model.judge is not None else None
    return certify(measurements, rendered.input_db, rendered.mask_db, judge_score, settings)


def listener_caveats(model: Model) -> tuple[str, ...]:
    """Return the doubts about a model learnt from listeners: it may agree with them by chance."""
    listeners = model.card.ears
    # Chance agrees half of the time; an interval above that excludes it.
    if listeners is None or listeners.agreement_interval[0] > 0.5:
        return ()
    low, high = (100 * end for end in listeners.agreement_interval)
    return (
        f"on pieces that it never heard the scorer agrees with {100 * listeners.agreement:.0f} % "
        f"({low:.0f} to {high:.0f}) of what listeners said, which may be chance",
    )


def adversarial_judge_score(
    rows_db: TimeSeries, model: Model, judge: Scorer, settings: EnhanceSettings
) -> float | None:
    """Return the judge's score of an adversarial example: random pixels, searched without penalties.

    The control of the paper's figure 1. It shows how far a mask that is not an EQ could fool the judge.
    None if the settings leave the control out.
    """
    limits = settings.certificate
    if limits.control_steps == 0:
        return None
    # An excerpt is searched at once, in bounded time and memory.
    excerpt = rows_db.read(0, model.settings.spectrum.to_frames(limits.control_seconds))
    # Without penalties every cell is free: what is found is noise, not an EQ.
    draws = RandomDraws(settings.seed)
    start = draws.normal(*excerpt.shape) * np.float32(settings.prior.random_db)
    unpenalised = SearchSettings(
        score=1.0, guide=0.0, alpha=0.0, steps=limits.control_steps, optimiser="Adam"
    )
    # Against the scorer, because the search minimises its score; the judge was not asked during it.
    problem = SearchProblem(
        WindowScore(model.scorer),
        excerpt,
        np.zeros_like(excerpt),
        unpenalised,
        window_frames=model.scorer.crop_frames,
        max_gain_db=settings.render.max_gain_db,
    )
    (last,) = deque(search_mask(problem, FreeMask(start), draws), maxlen=1)  # each step holds a mask
    return float(score_windows(judge, excerpt + last.mask_db).mean())
