"""The least amount of a correction that suffices."""

from collections.abc import Callable

import numpy as np

from tonewood.dsp.chunking import ArrayTimeSeries
from tonewood.enhancement.analysis import mean_score
from tonewood.enhancement.certification import least_sufficient_amount, sounds_like_reference
from tonewood.enhancement.pipeline import Enhancement, enhance_array, scorer_input, to_analysis_rate
from tonewood.mask.certificate import Certificate, Change, needs_no_change
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings


def certificate(after: float) -> Certificate:
    return Certificate(
        verdict="good", reasons=(), scorer=Change(before=0.9, after=after), judge=None,
        judge_smoothed=None, judge_fooled=None, static_share=None, largest_db=9.0, rms_db=3.0,
        roughness_db=0.2, unlikeness=0.6, unlike_reference=Change(before=1.4, after=0.7),
    )  # fmt: skip


def test_whole_correction_that_does_not_suffice_stays_whole(model: Model) -> None:
    rows = ArrayTimeSeries(np.zeros((4, 100), np.float32))
    assert not sounds_like_reference(certificate(0.6))
    assert least_sufficient_amount(rows, rows, certificate(0.6), model) == 1.0


def test_least_amount_suffices_and_smaller_ones_do_not(model: Model, play: Callable[..., np.ndarray]) -> None:
    samples = play(3, formant_hz=2_500.0)
    settings = EnhanceSettings().replace(force=True, search=dict(steps=1))
    events = enhance_array(np.atleast_2d(samples), 16_000, model, settings)
    result = next(event for event in events if isinstance(event, Enhancement))
    rows = scorer_input(to_analysis_rate(np.atleast_2d(samples), 16_000, model), model)
    gain_db = result.mask.gains.read(0, rows.shape[1])
    amount = least_sufficient_amount(ArrayTimeSeries(rows), ArrayTimeSeries(gain_db), certificate(0.1), model)

    def suffices(share: float) -> bool:
        levels = ArrayTimeSeries(rows + np.float32(share) * gain_db)
        judge = None if model.judge is None else mean_score(model.judge, levels)
        return needs_no_change(
            mean_score(model.scorer, levels), judge, model.folder_distances(levels).reference
        )

    assert [suffices(share) for share in (0.25, 0.5, 0.75) if share < amount].count(True) == 0
    assert amount == 1.0 or suffices(amount)
