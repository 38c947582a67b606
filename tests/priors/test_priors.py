"""Priors, their blend, and its selection."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import firwin2, lfilter

from tonewood.dsp.features import Features, compute_features
from tonewood.priors.blend_selection import (
    CANDIDATE_BLENDS,
    BlendScore,
    PseudoCycles,
    energy_distance,
    score_blends,
    select_blend,
)
from tonewood.priors.fitting import PriorFit, fit_priors
from tonewood.priors.nearest_neighbours import PriorFeatures
from tonewood.priors.predictor import MaskNetwork
from tonewood.priors.priors import (
    BlendWeights,
    MaskProjection,
    Priors,
    ShrinkageFactors,
    ShrinkageTable,
    blend_masks,
)
from tonewood.settings import (
    BandSettings,
    NeighbourSettings,
    NetworkSettings,
    PriorsSettings,
    SpectrumSettings,
)
from tonewood.utils.arrays import Levels

SETTINGS = PriorsSettings(
    neighbours=NeighbourSettings(frames=1_024, codes=256, nearest=4, components=8),
    network=NetworkSettings(width=16, steps=60),
)


def takes(play: Callable[..., Any], seeds: range, *, filtered: bool) -> list[Features]:
    taps = firwin2(257, [0, 300, 1_200, 3_000, 8_000], [1, 1, 3, 0.4, 0.4], fs=16_000)
    results = []
    for seed in seeds:
        wave = play(8, seed=seed)[0]
        wave = lfilter(taps, 1, wave).astype(np.float32) if filtered else wave
        results.append(compute_features(wave, BandSettings(), SpectrumSettings()))
    return results


@pytest.fixture(scope="module")
def fitted(play: Callable[..., Any]) -> PriorFit:
    """Return folders that differ by one fixed filter."""
    generator = torch.Generator().manual_seed(0)
    reference = takes(play, range(5), filtered=True)
    source = takes(play, range(10, 15), filtered=False)
    return fit_priors(reference[:4], source, reference[4:], SETTINGS, 10.0, generator)


def distance(rows: Levels, expected: Levels) -> float:
    difference = rows - expected
    return float(np.sqrt(np.square(difference - difference.mean()).mean(axis=0)).mean())


def noise(seed: int, *shape: int) -> NDArray[np.float32]:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).numpy()


def test_cycle_score_is_the_weighted_mean_over_takes() -> None:
    def take(seed: int) -> PriorFeatures:
        rows = noise(seed, 6, 40)
        return PriorFeatures(rows, rows[:2], np.ones(40, bool), np.ones(40, np.float32))

    class Silent:
        def suggestions(self, pseudo: PriorFeatures) -> list[Levels]:
            return [np.zeros_like(pseudo.rows_db)] * 4

    imitations, originals = [take(1), take(2)], [take(3), take(4)]
    originals[1] = originals[1]._replace(rows_db=3 * originals[1].rows_db)
    near, far = (
        distance(pseudo.rows_db, original.rows_db)
        for pseudo, original in zip(imitations, originals, strict=True)
    )
    assert far > 1.5 * near
    for shares, expected in ((None, (near + far) / 2), ([3.0, 1.0], (3 * near + far) / 4)):
        silent: Any = Silent()
        cycles = PseudoCycles(imitations, originals, shares)
        scores = score_blends(silent, cycles, imitations, originals)
        assert [score.cycle_db for score in scores] == pytest.approx([expected] * len(CANDIDATE_BLENDS))


def test_energy_distance_is_zero_for_one_distribution_and_sees_smoothing() -> None:
    reference, same = noise(1, 6, 1_500), noise(2, 6, 1_500)
    assert energy_distance(reference, reference) == pytest.approx(0, abs=1e-3)
    assert energy_distance(same, reference) < 0.02
    assert energy_distance(0.7 * same, reference) > 0.05  # frames too much alike
    assert energy_distance(same + 0.5, reference) > 0.05
    # Székely's law for two points: twice the distance between them.
    assert energy_distance(*np.array([[[0]], [[3]]], np.float32)) == pytest.approx(6)


def test_blend_that_smooths_is_not_selected() -> None:
    """The static mask is the truth; the network also brings frames closer to their mean."""

    def take(seed: int, level_db: float = 0.0) -> PriorFeatures:
        rows = 6 * noise(seed, 24, 300)
        rows[0] += level_db
        return PriorFeatures(rows, rows[:2], np.ones(300, bool), np.ones(300, np.float32))

    class Smoothing:
        def suggestions(self, pseudo: PriorFeatures) -> list[Levels]:
            static = np.zeros_like(pseudo.rows_db)
            static[0] = 20
            network = static - 0.5 * (pseudo.rows_db + static - pseudo.rows_db.mean(axis=1, keepdims=True))
            return [static, static, network, network]

    originals = [take(seed, 20.0) for seed in range(3)]
    source = [take(seed) for seed in range(10, 13)]
    # Pseudo-source is irregular, so that smoothing reduces the cycle distance.
    pseudo = [o._replace(rows_db=o.rows_db + 6 * noise(20 + i, 24, 300)) for i, o in enumerate(originals)]
    for each in pseudo:
        each.rows_db[0] -= 20
    smoothing: Any = Smoothing()
    scores = score_blends(smoothing, PseudoCycles(pseudo, originals), source, originals)
    assert min(scores, key=lambda score: score.cycle_db).weights.static < 0.5
    weights = select_blend(scores)
    assert weights.forward + weights.backward < 0.3


@pytest.mark.parametrize(("energy_db", "static_share"), [(0.9, 0.0), (2.0, 0.85)])
def test_adaptive_masks_are_used_where_both_distances_together_are_smaller(
    energy_db: float, static_share: float
) -> None:
    scores = [
        BlendScore(weights, cycle_db=1.0, energy_db=1.0)
        if weights.static == 1
        else BlendScore(weights, cycle_db=0.9, energy_db=energy_db)
        for weights in CANDIDATE_BLENDS
        if weights.static in (0, 1)
    ]
    selected = select_blend(scores)
    assert selected.static == static_share
    assert selected.level == (1.0 if static_share else 0.5)


def test_cycle_distance_chooses_among_adaptive_blends() -> None:
    """Frames that are corrected to a mean are too much alike, but nearer to the takes that they belong to."""
    scores = [
        BlendScore(
            weights,
            cycle_db=6.0 - 2.0 * weights.neighbours + 3.0 * weights.static,
            energy_db=1.0 + weights.neighbours,
        )
        for weights in CANDIDATE_BLENDS
    ]
    assert select_blend(scores).neighbours >= 0.5


def test_candidate_blends_sum_to_one() -> None:
    assert all(abs(sum(weights[:4]) - 1) < 1e-9 for weights in CANDIDATE_BLENDS)


def test_blend_is_linear_and_scales_the_level() -> None:
    one, two = np.full((3, 2), 4, np.float32), np.array([[0, 2]] * 3, dtype=np.float32)
    blend = blend_masks([one, None, two, None], BlendWeights(0.25, 0.0, 0.75, 0.0))
    np.testing.assert_allclose(blend, 0.25 * one + 0.75 * two)
    flat = blend_masks([one, None, two, None], BlendWeights(0.25, 0.0, 0.75, 0.0, level=0.0))
    np.testing.assert_allclose(flat, 0)


def test_blend_undoes_most_of_a_common_filter(play: Callable[..., Any], fitted: PriorFit) -> None:
    [before] = takes(play, range(30, 31), filtered=False)
    [expected] = takes(play, range(30, 31), filtered=True)
    mask = fitted.priors.mask(before, "auto")
    audible_frames = fitted.priors.source.prior_features(before).audible
    left = distance((before.rows_db + mask)[:, audible_frames], expected.rows_db[:, audible_frames])
    assert left < 0.5 * distance(before.rows_db[:, audible_frames], expected.rows_db[:, audible_frames])


def test_selected_blend_is_the_mean_of_the_best(fitted: PriorFit) -> None:
    assert [score.weights for score in fitted.scores] == list(CANDIDATE_BLENDS)
    cycles = 1 + np.random.default_rng(0).random(len(CANDIDATE_BLENDS))
    scores = [
        BlendScore(weights, 9.0 if weights.static == 1 else cycle, 1.0)
        for weights, cycle in zip(CANDIDATE_BLENDS, cycles.tolist(), strict=True)
    ]
    best = sorted(scores, key=lambda score: score.cycle_db)[:4]
    np.testing.assert_allclose(select_blend(scores), np.mean([score.weights for score in best], axis=0))


def test_static_prior_is_constant_over_time(play: Callable[..., Any], fitted: PriorFit) -> None:
    [take] = takes(play, range(30, 31), filtered=False)
    mask = fitted.priors.mask(take, "static")
    np.testing.assert_allclose(mask, np.broadcast_to(mask[:, :1], mask.shape), rtol=1e-5)


def test_silence_gets_the_static_mask(play: Callable[..., Any], fitted: PriorFit, earlier: Priors) -> None:
    """As much of it as the rest of the recording needs."""
    [take] = takes(play, range(30, 31), filtered=False)
    hushed = take._replace(rows_db=take.rows_db.copy())
    hushed.rows_db[:, 400:] = -130.0
    static = np.repeat(fitted.priors.static_db[:, None], 351, axis=1)
    unscaled = earlier.mask(hushed, "auto")
    np.testing.assert_allclose(unscaled[:, 450:], static, rtol=1e-5)
    features = fitted.priors.source.prior_features(hushed)
    need = fitted.priors.need(fitted.priors.project(features, unscaled))
    np.testing.assert_allclose(fitted.priors.mask(hushed, "auto")[:, 450:], need * static, rtol=1e-5)


def test_corrected_pairs_are_closer_than_uncorrected(fitted: PriorFit) -> None:
    assert len(fitted.corrected) == 4
    assert len(fitted.corrected_held_out) == 1
    for near, expected in fitted.corrected:
        assert near.shape == expected.shape


def test_priors_survive_storage(play: Callable[..., Any], fitted: PriorFit) -> None:
    [take] = takes(play, range(30, 31), filtered=False)
    again = Priors.from_tensors(fitted.priors.tensors(), SETTINGS, 10.0)
    assert np.array_equal(again.mask(take, "auto"), fitted.priors.mask(take, "auto"))
    assert again.weights == fitted.priors.weights
    assert again.source_need == fitted.priors.source_need is not None


@pytest.fixture
def earlier(fitted: PriorFit) -> Priors:
    """Return the priors as an earlier version would have stored them."""
    named = fitted.priors.tensors()
    del named["source_need"]
    return Priors.from_tensors(named, SETTINGS, 10.0)


def test_masks_of_earlier_versions_are_not_scaled(
    play: Callable[..., Any], fitted: PriorFit, earlier: Priors
) -> None:
    """A filtered recording, which needs little of the static mask, shows the difference."""
    [take] = takes(play, range(30, 31), filtered=True)
    current, before = (replace(priors, weights=CANDIDATE_BLENDS[0]) for priors in (fitted.priors, earlier))
    whole = before.mask(take, "auto")
    need = current.need(current.project(current.source.prior_features(take), whole))
    assert need < 0.2
    np.testing.assert_allclose(current.mask(take, "auto"), need * whole, rtol=1e-5)
    assert earlier.source_need is None
    assert not earlier.scales_by_need("auto")
    assert earlier.need(MaskProjection(0.0, 1.0)) == 1.0


def test_priors_of_earlier_versions_survive_storage(play: Callable[..., Any], earlier: Priors) -> None:
    [take] = takes(play, range(30, 31), filtered=False)
    again = Priors.from_tensors(earlier.tensors(), SETTINGS, 10.0)
    assert again.source_need is None
    assert np.array_equal(again.mask(take, "auto"), earlier.mask(take, "auto"))


def test_only_the_automatic_prior_is_scaled(
    play: Callable[..., Any], fitted: PriorFit, earlier: Priors
) -> None:
    [take] = takes(play, range(30, 31), filtered=True)
    for kind in ("static", "neighbours", "network"):
        assert not fitted.priors.scales_by_need(kind)
        assert np.array_equal(fitted.priors.mask(take, kind), earlier.mask(take, kind))


def test_reference_needs_less_than_the_source(play: Callable[..., Any], fitted: PriorFit) -> None:
    """Recordings outside the fit, with the same filter as the reference and without.

    Of the static mask: a blend of networks is itself what they find needed.
    """
    priors = replace(fitted.priors, weights=CANDIDATE_BLENDS[0])
    needs = []
    for filtered in (True, False):
        [take] = takes(play, range(30, 31), filtered=filtered)
        whole = np.repeat(priors.static_db[:, None], take.rows_db.shape[1], axis=1)
        needs.append(priors.need(priors.project(priors.source.prior_features(take), whole)))
    assert needs[0] < 0.2 * needs[1]
    assert needs[1] > 0.8


def test_ways_start_at_the_source_and_end_at_the_reference(
    play: Callable[..., Any], fitted: PriorFit
) -> None:
    """The starts of the source's ways are its takes; the ends of the reference's ways are theirs."""
    priors, ways = fitted.priors, fitted.ways
    assert [len(part) for part in ways] == [5, 4, 1]
    starts = [start for start, _ in ways.source]
    for rows, features in zip(starts, takes(play, range(10, 15), filtered=False), strict=True):
        np.testing.assert_allclose(rows, priors.source.prior_features(features).rows_db, rtol=1e-5)
    ends = [end for _, end in (*ways.reference, *ways.held_out)]
    for rows, features in zip(ends, takes(play, range(5), filtered=True), strict=True):
        expected = priors.reference.prior_features(features).rows_db
        np.testing.assert_allclose(rows, expected, atol=1e-4)


masks = st.integers(0, 2**31 - 1).map(lambda seed: noise(seed, 3, 6, 40))
ACTIVITY = np.linspace(0, 1, 40, dtype=np.float32)


@given(masks, st.sampled_from([1.0, 0.5, 0.0, -0.25]))
def test_ratio_is_the_share_of_the_offered_mask(both: Levels, share: float) -> None:
    projection = MaskProjection.from_masks(share * both[0], both[0], ACTIVITY)
    assert projection.ratio == pytest.approx(share, abs=1e-5)


@given(masks)
def test_ratio_ignores_the_overall_level_of_each_frame(both: Levels) -> None:
    needed, offered, noise = both
    louder = MaskProjection.from_masks(needed + 9 * noise[0], offered - 7 * noise[1], ACTIVITY)
    assert louder == pytest.approx(MaskProjection.from_masks(needed, offered, ACTIVITY), abs=1e-3)


@given(masks, st.integers(0, 40))
def test_projections_of_parts_add_to_that_of_the_whole(both: Levels, border: int) -> None:
    needed, offered, _ = both
    parts = [
        MaskProjection.from_masks(needed[:, part], offered[:, part], ACTIVITY[part])
        for part in (slice(0, border), slice(border, None))
    ]
    assert parts[0].add(parts[1]) == pytest.approx(
        MaskProjection.from_masks(needed, offered, ACTIVITY), abs=1e-4
    )


@given(masks)
def test_projection_equals_the_sum_over_cells(both: Levels) -> None:
    needed, offered = ((mask - mask.mean(axis=0)).tolist() for mask in both[:2])
    cells = [(row, frame) for row in range(6) for frame in range(40)]
    product = sum(needed[i][k] * offered[i][k] * float(ACTIVITY[k]) for i, k in cells)
    square = sum(offered[i][k] ** 2 * float(ACTIVITY[k]) for i, k in cells)
    projection = MaskProjection.from_masks(both[0], both[1], ACTIVITY)
    assert projection == pytest.approx((product, square), abs=1e-4)


def test_mask_of_zeros_needs_nothing() -> None:
    zero = np.zeros((6, 40), np.float32)
    assert MaskProjection.from_masks(zero + ACTIVITY, zero, ACTIVITY).ratio == 0


@given(ratio=st.floats(-3, 3), source_need=st.floats(0.2, 2))
def test_need_is_relative_to_the_source_and_between_none_and_all(
    fitted: PriorFit, ratio: float, source_need: float
) -> None:
    need = replace(fitted.priors, source_need=source_need).need(MaskProjection(ratio * 4, 4.0))
    assert 0 <= need <= 1
    assert need == pytest.approx(sorted((0.0, ratio / source_need, 1.0))[1])


def test_missing_tensor_raises(fitted: PriorFit) -> None:
    named = fitted.priors.tensors()
    del named["static_db"]
    with pytest.raises(KeyError, match="static_db"):
        Priors.from_tensors(named, SETTINGS, 10.0)
    named = fitted.priors.tensors()
    named["source.fine"] = named["source.fine"][:, :-1]
    with pytest.raises(ValueError, match="pitch keys"):
        Priors.from_tensors(named, SETTINGS, 10.0)


def test_zero_factors_give_the_static_mask(play: Callable[..., Any], fitted: PriorFit) -> None:
    [take] = takes(play, range(30, 31), filtered=False)
    none = replace(
        fitted.priors,
        shrinkage=ShrinkageTable(ShrinkageFactors(0.0, 0.0), ShrinkageFactors(0.0, 0.0)),
    )
    for kind in ("neighbours", "network"):
        static = np.broadcast_to(fitted.priors.static_db[:, None], take.rows_db.shape)
        np.testing.assert_allclose(none.mask(take, kind), static, rtol=1e-5)


def test_priors_of_weight_zero_are_not_computed(
    play: Callable[..., Any], fitted: PriorFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("computed in vain")

    monkeypatch.setattr(MaskNetwork, "predict_gain", forbidden)
    [take] = takes(play, range(30, 31), filtered=False)
    assert np.isfinite(fitted.priors.mask(take, "neighbours")).all()
    # What a recording needs is the networks' view, so a scaled blend computes them always.
    only = replace(fitted.priors, weights=BlendWeights(0.5, 0.5, 0.0, 0.0), source_need=None)
    assert np.isfinite(only.mask(take, "auto")).all()
    with pytest.raises(AssertionError, match="in vain"):
        fitted.priors.mask(take, "network")


def test_same_seed_gives_same_priors(play: Callable[..., Any]) -> None:
    reference, source = (takes(play, range(3), filtered=f) for f in (True, False))
    small = SETTINGS.model_copy(update={"network": NetworkSettings(width=8, steps=20)})
    results = [
        fit_priors(
            reference[:2], source, reference[2:], small, 10.0, torch.Generator().manual_seed(5)
        ).priors.tensors()
        for _ in range(2)
    ]
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])
