"""Shrinkage by the variance over takes and by placebo."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import firwin2, lfilter

from tonewood.dsp.features import Features, compute_features
from tonewood.priors.fitting import HeldOutGroups, fit_priors
from tonewood.priors.folder_fitting import fit_folder_statistics
from tonewood.priors.nearest_neighbours import PriorFeatures, cosine_basis
from tonewood.priors.priors import ShrinkageFactors, Variance, mean_over_audible
from tonewood.priors.static_mask import (
    PENALTIES,
    SpectralDifference,
    StaticMethod,
    cluster_sessions,
    fit_static_mask,
    select_static_method,
    spectral_difference,
)
from tonewood.settings import (
    BandSettings,
    NeighbourSettings,
    NetworkSettings,
    PriorsSettings,
    SpectrumSettings,
)
from tonewood.utils.arrays import Levels

ROWS = 48
UNSHRUNK = StaticMethod((0, 0, 0, 1))
BASIS = cosine_basis(ROWS).astype(np.float32)
NEAR = NeighbourSettings(frames=1_024, codes=256, nearest=4, components=8)


def noise(seed: int, *shape: int) -> NDArray[np.float32]:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).numpy()


def folder_differences(
    difference: Levels, spread_db: float, takes: int, seed: int
) -> tuple[SpectralDifference, SpectralDifference]:
    """Return both sides' differences [take, row]: a common one, and a smooth one per take."""
    basis = BASIS[1:9]
    reference_side, source_side = (spread_db * noise(seed + s, takes, 8) @ basis for s in (0, 1_000))
    reference = spectral_difference_of(difference + reference_side - source_side.mean(axis=0))
    source = spectral_difference_of(difference + reference_side.mean(axis=0) - source_side)
    return (
        reference._replace(spectrum_db=(difference + reference_side).astype(np.float32)),
        source._replace(spectrum_db=source_side.astype(np.float32)),
    )


def spectral_difference_of(rows: Levels, frames: float = 9.0) -> SpectralDifference:
    """Return takes that are constant within 0.1 dB."""
    return SpectralDifference(rows, 0.1 * noise(9, *rows.shape), rows, np.full(len(rows), frames, np.float32))


def error(mask: Levels, true_db: Levels) -> float:
    return float(np.sqrt(np.square(mask - true_db).mean()))


def test_agreeing_takes_are_hardly_shrunk() -> None:
    difference = 10 * BASIS[3]
    np.testing.assert_allclose(
        fit_static_mask(*folder_differences(difference, 0.0, 5, 0)), difference, atol=1e-5
    )


def test_difference_within_variance_of_takes_is_shrunk() -> None:
    nothing = np.zeros(ROWS, np.float32)
    shrunk, unshrunk = [], []
    for seed in range(20):
        sides = folder_differences(nothing, 20.0, 5, seed)
        shrunk.append(error(fit_static_mask(*sides), nothing))
        unshrunk.append(error(fit_static_mask(*sides, UNSHRUNK), nothing))
    assert sum(shrunk) < 0.5 * sum(unshrunk)


def test_shrinkage_lowers_error_for_few_takes_and_costs_little_otherwise() -> None:
    difference = BASIS[1:9].T @ (12 * noise(7, 8))
    for takes, spread, share in ((4, 24.0, 0.9), (200, 24.0, 1.05)):
        trials = [folder_differences(difference, spread, takes, seed) for seed in range(20)]
        shrunk = sum(error(fit_static_mask(*sides), difference) for sides in trials)
        assert shrunk < share * sum(error(fit_static_mask(*s, UNSHRUNK), difference) for s in trials)


def test_long_takes_weigh_more_and_single_take_uses_other_variance() -> None:
    rows = np.stack([np.zeros(ROWS), np.ones(ROWS)]).astype(np.float32)
    assert spectral_difference_of(rows)._replace(frames=np.array([1, 3], dtype=np.float32)).mean[0] == 0.75
    difference = 10 * BASIS[3]
    alone, many = folder_differences(difference, 8.0, 6, 0)
    one = spectral_difference_of(alone.rows_db[:1])
    assert np.linalg.norm(fit_static_mask(one, many)) < np.linalg.norm(fit_static_mask(one, many, UNSHRUNK))


def test_takes_of_one_session_count_once() -> None:
    colours = 20 * noise(1, 3, 8) @ BASIS[1:9]
    cut = np.repeat(colours, 4, axis=0) + 0.05 * noise(2, 12, ROWS)
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(3)).numpy()
    result = cluster_sessions(spectral_difference_of(cut[shuffled]))
    assert set(result.tolist()) == {0, 1, 2}
    for one in range(3):
        assert len(set((shuffled[result == one] // 4).tolist())) == 1
    whole, pieces = spectral_difference_of(colours), spectral_difference_of(cut)
    shrunk = fit_static_mask(pieces, pieces)
    assert error(shrunk, fit_static_mask(whole, whole)) < 0.1
    assert np.linalg.norm(fit_static_mask(pieces, pieces, UNSHRUNK)) > 1.5 * np.linalg.norm(shrunk)


def test_held_out_sessions_choose_how_the_static_mask_is_estimated() -> None:
    filter_db = 40 * BASIS[3]  # 6 dB rms

    def choose(
        matched_db: Levels, spread_db: float, takes: int, content_db: float, seed: int
    ) -> StaticMethod:
        """Sides whose matched frames say `matched_db`, while the spectra differ by the filter."""
        sides = folder_differences(matched_db, spread_db, takes, seed)
        spectra = [content_db * noise(seed + s, takes, ROWS) for s in (50, 51)]
        spectra[0] = spectra[0] + filter_db
        return select_static_method(
            *(side._replace(spectrum_db=spectrum) for side, spectrum in zip(sides, spectra, strict=True))
        )

    trials = range(4)
    # Matched frames see the filter: they are kept as they are, however much the pieces differ.
    assert all(choose(filter_db, 1.0, 8, 6.0, seed).shares for seed in trials)
    # They see half of it, and the pieces differ little: the plain difference.
    assert not any(choose(0.5 * filter_db, 1.0, 24, 2.0, seed).shares for seed in trials)
    # A single take cannot be halved.
    assert choose(0.5 * filter_db, 1.0, 1, 2.0, 0) == StaticMethod((1, 0, 0, 0))
    sides = folder_differences(filter_db, 1.0, 4, 0)
    plain = fit_static_mask(*sides, StaticMethod(()))
    expected = sides[0].spectrum_db.mean(axis=0) - sides[1].spectrum_db.mean(axis=0)
    np.testing.assert_allclose(plain, expected, atol=1e-5)


def test_shrinkage_follows_what_held_out_sessions_say() -> None:
    nothing = np.zeros(ROWS, np.float32)

    def shares(difference: Levels, spread_db: float) -> NDArray[np.float64]:
        """Return the shares [trial, penalty] of six takes on either side."""
        trials = (folder_differences(difference, spread_db, 6, seed) for seed in range(8))
        return np.array([select_static_method(*sides).shares for sides in trials])

    assert np.mean(shares(nothing, 24.0) @ PENALTIES) > 0.75  # one recording does not tell of the others
    different = shares(BASIS[1:9].T @ (20 * np.sign(noise(7, 8))), 12.0)
    assert np.mean(different @ PENALTIES) < 0.6
    # Six takes do not tell neighbouring strengths apart: none has nearly all of the mask.
    assert np.mean(different.max(axis=1)) < 0.8


def test_takes_as_similar_as_halves_form_one_session() -> None:
    assert not cluster_sessions(
        SpectralDifference(
            noise(1, 20, ROWS), 2 * noise(2, 20, ROWS), noise(1, 20, ROWS), np.ones(20, np.float32)
        )
    ).any()
    apart = cluster_sessions(
        SpectralDifference(
            9 * noise(1, 20, ROWS), 0.1 * noise(2, 20, ROWS), noise(1, 20, ROWS), np.ones(20, np.float32)
        )
    )
    assert len(set(apart.tolist())) == 20
    unsteady = 2 * noise(2, 20, ROWS)
    unsteady[3] = np.nan  # too short to have halves
    assert not cluster_sessions(
        SpectralDifference(noise(1, 20, ROWS), unsteady, noise(1, 20, ROWS), np.ones(20, np.float32))
    ).any()


@given(st.floats(0, 1), st.floats(0, 1))
def test_factors_scale_recording_and_frame_deviations(take: float, moment: float) -> None:
    mask, static = noise(1, 6, 40), noise(2, 6)
    audible = np.arange(40) > 9
    results = ShrinkageFactors(take, moment).apply(mask, static, mean_over_audible(mask, audible))
    np.testing.assert_allclose(
        mean_over_audible(results, audible),
        static + take * (mean_over_audible(mask, audible) - static),
        atol=1e-5,
    )
    np.testing.assert_allclose(np.diff(results), moment * np.diff(mask), atol=1e-5, rtol=1e-5)


def test_factor_falls_from_one_to_zero_with_placebo_variance() -> None:
    real = Variance(per_recording=4.0, per_frame=9.0)
    assert ShrinkageFactors.from_variance(real, Variance(0.4, 0.9)) == ShrinkageFactors(1.0, 1.0)
    assert ShrinkageFactors.from_variance(real, real) == ShrinkageFactors(0.0, 0.0)
    assert ShrinkageFactors.from_variance(real, Variance(1.9, 0.0)) == pytest.approx((0.5, 1.0))
    assert ShrinkageFactors.from_variance(real, Variance(2.4, 0.0)) == pytest.approx((0.0, 1.0))
    assert ShrinkageFactors.from_variance(real, real, penalty=0) == ShrinkageFactors(1.0, 1.0)


def test_variance_equals_explicit_loop() -> None:
    masks = [noise(seed, 3, 20) for seed in range(3)]
    audible = np.arange(20) < 15
    takes = [PriorFeatures(mask, mask, audible, np.ones(20, np.float32)) for mask in masks]
    means = [[row[:15].mean() for row in mask] for mask in masks]
    shapes = np.array([[m - sum(mean) / 3 for m in mean] for mean in means])
    moment = sum(
        float((mask[r, t] - means[i][r]) ** 2)
        for i, mask in enumerate(masks)
        for r in range(3)
        for t in range(15)
    )
    result = Variance.from_masks(masks, takes)
    assert result.per_recording == pytest.approx(float(shapes.var(axis=0, ddof=1).mean()), rel=1e-5)
    assert result.per_frame == pytest.approx(moment / (3 * 3 * 15), rel=1e-5)


@pytest.fixture(scope="module")
def recordings(play: Callable[..., Any]) -> Callable[..., list[Features]]:
    """Return a factory of takes, each with a random filter and one for all."""
    taps = firwin2(257, [0, 300, 1_200, 3_000, 8_000], [1, 1, 3, 0.4, 0.4], fs=16_000)

    def make(seeds: range, *, own_db: float, filtered: bool) -> list[Features]:
        results = []
        for seed in seeds:
            knots = 10 ** (own_db * noise(seed, 6) / 20)
            random_filter = firwin2(257, [0, 500, 1_000, 2_000, 4_000, 8_000], knots, fs=16_000)
            wave = lfilter(random_filter, 1, play(6, seed=seed)[0])
            wave = (lfilter(taps, 1, wave) if filtered else wave).astype(np.float32)
            results.append(compute_features(wave, BandSettings(), SpectrumSettings()))
        return results

    return make


def test_frames_are_compared_with_matching_frames(recordings: Callable[..., list[Features]]) -> None:
    reference = recordings(range(4), own_db=0.0, filtered=True)
    source = recordings(range(10, 14), own_db=0.0, filtered=False)
    reference_side, source_side = fit_folder_statistics(
        reference, source, NEAR, torch.Generator().manual_seed(0)
    )
    sides = (
        spectral_difference(
            [reference_side.prior_features(f) for f in reference], reference_side, source_side, sign=1.0
        ),
        spectral_difference(
            [source_side.prior_features(f) for f in source], source_side, reference_side, sign=-1.0
        ),
    )
    dry, wet = (recordings(range(1), own_db=0.0, filtered=f)[0].rows_db for f in (False, True))
    true_db = np.median((wet - dry)[:, 50:500], axis=1)
    for side in sides:
        assert np.corrcoef([side.mean, true_db])[0, 1] > 0.9


def test_common_filter_leaves_no_adaptive_part(
    recordings: Callable[..., list[Features]],
) -> None:
    reference = recordings(range(7), own_db=0.0, filtered=True)
    source = recordings(range(10, 16), own_db=0.0, filtered=False)

    def total_factor(doubt: float, steps: int = 60) -> float:
        network = NetworkSettings(width=16, steps=steps)
        tested = PriorsSettings(neighbours=NEAR, network=network, doubt=doubt)
        generator = torch.Generator().manual_seed(0)
        shrinkage = fit_priors(reference[:6], source, reference[6:], tested, 10.0, generator).priors.shrinkage
        return shrinkage.neighbours.per_frame + shrinkage.networks.per_frame

    assert total_factor(1.0) < 0.5
    assert total_factor(0.0, steps=20) == 2.0  # nothing is measured then


def test_few_different_sessions_give_static_mask_only(
    recordings: Callable[..., list[Features]],
) -> None:
    settings = PriorsSettings(neighbours=NEAR, network=NetworkSettings(width=16, steps=20))
    reference = recordings(range(7), own_db=9.0, filtered=True)
    source = recordings(range(10, 16), own_db=9.0, filtered=False)
    priors = fit_priors(
        reference[:6], source, reference[6:], settings, 10.0, torch.Generator().manual_seed(0)
    ).priors
    mask = priors.mask(source[0], "auto")
    shape = mask - mask.mean(axis=0) - (priors.static_db - priors.static_db.mean())[:, None]
    np.testing.assert_allclose(shape, 0, atol=1e-4)


def test_folder_is_halved_by_session_if_large_enough() -> None:
    rows = 9 * np.repeat(noise(1, 12, ROWS), 2, axis=0)
    takes: list[Any] = list(range(24))
    folder = HeldOutGroups.from_difference(takes, spectral_difference_of(rows))
    assert folder.is_testable
    first, second = folder.halve(torch.Generator().manual_seed(0))
    halves: list[list[Any]] = [list(half.takes) for half in (first, second)]
    assert sorted(halves[0] + halves[1]) == takes
    assert not {take // 2 for take in halves[0]} & {take // 2 for take in halves[1]}
    few = HeldOutGroups.from_difference(takes[:8], spectral_difference_of(rows[:8]))
    assert not few.is_testable
    assert few.held_out_group.tolist() == list(range(8))
    alike = HeldOutGroups.from_difference(takes[:4], spectral_difference_of(np.zeros((4, ROWS), np.float32)))
    assert alike.single_session
    assert alike.is_testable
