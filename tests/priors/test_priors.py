"""Priors, their blend, and its selection."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.signal import firwin2, lfilter

from tonewood.dsp.features import Features, compute_features
from tonewood.priors import fitting
from tonewood.priors.fitting import CANDIDATE_BLENDS, PriorFit
from tonewood.priors.nearest_neighbours import PriorFeatures
from tonewood.priors.predictor import MaskNetwork
from tonewood.priors.priors import BlendWeights, Priors, ShrinkageTable, blend_masks
from tonewood.priors.shrinkage import ShrinkageFactors
from tonewood.settings import (
    BandSettings,
    NeighbourSettings,
    NetworkSettings,
    PriorsSettings,
    SpectrumSettings,
)

SETTINGS = PriorsSettings(
    neighbours=NeighbourSettings(frames=1_024, codes=256, nearest=4, components=8),
    network=NetworkSettings(width=16, steps=60),
)


def takes(play: Callable[..., Any], seeds: range, *, filtered: bool) -> list[Features]:
    taps = firwin2(257, [0, 300, 1_200, 3_000, 8_000], [1, 1, 3, 0.4, 0.4], fs=16_000)
    results = []
    for seed in seeds:
        wave = play(8, seed=seed)[0]
        wave = lfilter(taps, 1, wave) if filtered else wave
        tensor = torch.from_numpy(wave).float()
        results.append(compute_features(tensor, BandSettings(), SpectrumSettings()))
    return results


@pytest.fixture(scope="module")
def fitted(play: Callable[..., Any]) -> PriorFit:
    """Return folders that differ by one fixed filter."""
    generator = torch.Generator().manual_seed(0)
    reference = takes(play, range(5), filtered=True)
    source = takes(play, range(10, 15), filtered=False)
    return fitting.fit_priors(reference[:4], source, reference[4:], SETTINGS, 10.0, generator)


def distance(rows: torch.Tensor, expected: torch.Tensor) -> float:
    difference = rows - expected
    return float((difference - difference.mean()).square().mean(dim=0).sqrt().mean())


def test_cycle_score_is_the_weighted_mean_over_takes() -> None:
    def take(seed: int) -> PriorFeatures:
        rows = torch.randn(6, 40, generator=torch.Generator().manual_seed(seed))
        return PriorFeatures(rows, rows[:2], torch.ones(40, dtype=torch.bool), torch.ones(40))

    class Silent:
        def suggestions(self, pseudo: PriorFeatures) -> list[torch.Tensor]:
            return [torch.zeros_like(pseudo.rows_db)] * 4

    imitations, originals = [take(1), take(2)], [take(3), take(4)]
    originals[1] = originals[1]._replace(rows_db=3 * originals[1].rows_db)
    near, far = (
        distance(pseudo.rows_db, original.rows_db)
        for pseudo, original in zip(imitations, originals, strict=True)
    )
    assert far > 1.5 * near
    for shares, expected in ((None, (near + far) / 2), ([3.0, 1.0], (3 * near + far) / 4)):
        silent: Any = Silent()
        cycles = fitting._score_blends(silent, imitations, originals, shares)
        assert [cycle.distance_db for cycle in cycles] == pytest.approx([expected] * len(CANDIDATE_BLENDS))


def test_candidate_blends_sum_to_one() -> None:
    assert all(abs(sum(weights[:4]) - 1) < 1e-9 for weights in CANDIDATE_BLENDS)


def test_blend_is_linear_and_scales_the_level() -> None:
    one, two = torch.full((3, 2), 4.0), torch.tensor([[0.0, 2.0]] * 3)
    blend = blend_masks([one, None, two, None], BlendWeights(0.25, 0.0, 0.75, 0.0))
    torch.testing.assert_close(blend, 0.25 * one + 0.75 * two)
    flat = blend_masks([one, None, two, None], BlendWeights(0.25, 0.0, 0.75, 0.0, level=0.0))
    torch.testing.assert_close(flat, torch.zeros(3, 2))


def test_blend_undoes_most_of_a_common_filter(play: Callable[..., Any], fitted: PriorFit) -> None:
    [before] = takes(play, range(30, 31), filtered=False)
    [expected] = takes(play, range(30, 31), filtered=True)
    mask = fitted.priors.mask(before, "auto")
    audible_frames = fitted.priors.source.prior_features(before).audible
    left = distance((before.rows_db + mask)[:, audible_frames], expected.rows_db[:, audible_frames])
    assert left < 0.5 * distance(before.rows_db[:, audible_frames], expected.rows_db[:, audible_frames])


def test_selected_blend_is_the_mean_of_the_best(fitted: PriorFit) -> None:
    best = sorted(fitted.cycle_scores, key=lambda cycle: cycle.distance_db)[:4]
    for chosen, values in zip(
        fitted.priors.weights, zip(*(c.weights for c in best), strict=True), strict=True
    ):
        assert chosen == pytest.approx(sum(values) / 4)
    assert [cycle.weights for cycle in fitted.cycle_scores] == list(CANDIDATE_BLENDS)


def test_static_prior_is_constant_over_time(play: Callable[..., Any], fitted: PriorFit) -> None:
    [take] = takes(play, range(30, 31), filtered=False)
    mask = fitted.priors.mask(take, "static")
    torch.testing.assert_close(mask, mask[:, :1].expand_as(mask))


def test_silence_gets_the_static_mask(play: Callable[..., Any], fitted: PriorFit) -> None:
    [take] = takes(play, range(30, 31), filtered=False)
    hushed = take._replace(rows_db=take.rows_db.clone())
    hushed.rows_db[:, 400:] = -130.0
    mask = fitted.priors.mask(hushed, "auto")
    torch.testing.assert_close(mask[:, 450:], fitted.priors.static_db[:, None].expand(-1, 351))


def test_corrected_pairs_are_closer_than_uncorrected(fitted: PriorFit) -> None:
    assert len(fitted.corrected) == 4
    assert len(fitted.corrected_held_out) == 1
    for near, expected in fitted.corrected:
        assert near.shape == expected.shape


def test_priors_survive_storage(play: Callable[..., Any], fitted: PriorFit) -> None:
    [take] = takes(play, range(30, 31), filtered=False)
    again = Priors.from_tensors(fitted.priors.tensors(), SETTINGS, 10.0)
    assert torch.equal(again.mask(take, "auto"), fitted.priors.mask(take, "auto"))
    assert again.weights == fitted.priors.weights


def test_missing_tensor_raises(fitted: PriorFit) -> None:
    named = fitted.priors.tensors()
    del named["static_db"]
    with pytest.raises(KeyError, match="static_db"):
        Priors.from_tensors(named, SETTINGS, 10.0)


def test_zero_factors_give_the_static_mask(play: Callable[..., Any], fitted: PriorFit) -> None:
    [take] = takes(play, range(30, 31), filtered=False)
    none = replace(
        fitted.priors,
        shrinkage=ShrinkageTable(ShrinkageFactors(0.0, 0.0), ShrinkageFactors(0.0, 0.0)),
    )
    for kind in ("neighbours", "network"):
        torch.testing.assert_close(
            none.mask(take, kind), fitted.priors.static_db[:, None].expand_as(take.rows_db)
        )


def test_priors_of_weight_zero_are_not_computed(
    play: Callable[..., Any], fitted: PriorFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("computed in vain")

    monkeypatch.setattr(MaskNetwork, "predict_gain", forbidden)
    [take] = takes(play, range(30, 31), filtered=False)
    only = replace(fitted.priors, weights=BlendWeights(0.5, 0.5, 0.0, 0.0))
    assert only.mask(take, "auto").isfinite().all()
    with pytest.raises(AssertionError, match="in vain"):
        fitted.priors.mask(take, "network")


def test_same_seed_gives_same_priors(play: Callable[..., Any]) -> None:
    reference, source = (takes(play, range(3), filtered=f) for f in (True, False))
    small = SETTINGS.model_copy(update={"network": NetworkSettings(width=8, steps=20)})
    results = [
        fitting.fit_priors(
            reference[:2], source, reference[2:], small, 10.0, torch.Generator().manual_seed(5)
        ).priors.tensors()
        for _ in range(2)
    ]
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
