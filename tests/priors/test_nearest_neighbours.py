"""Codebooks of folders, and nearest neighbours between them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tonewood.dsp.features import Features, compute_features
from tonewood.priors.folder_fitting import condense_codebook, fit_folder_statistics
from tonewood.priors.nearest_neighbours import (
    Codebook,
    FolderStatistics,
    _smallest,
    activity_from_level,
    back_translate,
    key_vectors,
    map_to_other,
    pitch_keys,
)
from tonewood.settings import BandSettings, NeighbourSettings, SpectrumSettings

SETTINGS = NeighbourSettings(frames=512, codes=512, nearest=4, components=8)
TILT = np.linspace(-6, 6, 48, dtype=np.float32)[:, None]


def noise(generator: torch.Generator, *shape: int) -> NDArray[np.float32]:
    return torch.randn(*shape, generator=generator).numpy()


@pytest.fixture(scope="module")
def takes(play: Callable[..., Any]) -> list[Features]:
    waves = [play(6, seed=seed)[0] for seed in range(4)]
    return [compute_features(wave, BandSettings(), SpectrumSettings()) for wave in waves]


def tilted(takes: list[Features]) -> list[Features]:
    return [take._replace(rows_db=take.rows_db + TILT) for take in takes]


@pytest.fixture(scope="module")
def folders(takes: list[Features]) -> tuple[FolderStatistics, FolderStatistics]:
    generator = torch.Generator().manual_seed(0)
    return fit_folder_statistics(tilted(takes[:2]), takes[2:], SETTINGS, generator)


def test_nearest_code_of_a_code_is_itself() -> None:
    key = noise(torch.Generator().manual_seed(1), 50, 5)
    rows = np.repeat(np.arange(50, dtype=np.float32)[:, None], 3, axis=1)
    book = Codebook(key, rows, np.arange(50))
    assert np.array_equal(book.nearest_mean(key, 1), rows.T)


def test_nearest_mean_equals_explicit_loop() -> None:
    generator = torch.Generator().manual_seed(2)
    key, query = (noise(generator, n, 6) for n in (40, 7))
    rows = noise(generator, 40, 3)
    book = Codebook(key, rows, np.zeros(40, np.int64))
    for frame, actual in enumerate(book.nearest_mean(query, 5).T):
        distance = [float(np.square(query[frame] - k).sum()) for k in key]
        nearest = sorted(range(40), key=lambda i: distance[i])[:5]
        np.testing.assert_allclose(actual, rows[nearest].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(("codes", "count"), [(12, 12), (97, 12), (2_048, 12), (300, 1)])
@pytest.mark.parametrize("step", [0.0, 0.5])  # without ties, and with many
def test_smallest_are_those_of_a_sorted_row(codes: int, count: int, step: float) -> None:
    values = np.random.default_rng(codes).standard_normal((40, codes)).astype(np.float32)
    values = np.round(values / step) * np.float32(step) if step else values
    chosen = np.take_along_axis(values, _smallest(values, count), axis=1)
    np.testing.assert_array_equal(np.sort(chosen, axis=1), np.sort(values, axis=1)[:, :count])


def test_projection_ignores_the_mean_pitch_spectrum(
    takes: list[Features], folders: tuple[FolderStatistics, FolderStatistics]
) -> None:
    """Directions are those in which frames differ: a fixed filter over pitches adds none."""
    offset = 5 * noise(torch.Generator().manual_seed(3), takes[0].fine_db.shape[0], 1)
    shifted = [take._replace(fine_db=take.fine_db + offset) for take in tilted(takes[:2])]
    shifted_folder, _ = fit_folder_statistics(shifted, takes[2:], SETTINGS, torch.Generator().manual_seed(0))
    alike = np.abs((shifted_folder.projection * folders[0].projection).sum(axis=0))
    np.testing.assert_allclose(alike, 1, atol=1e-3)


def test_skipped_take_is_not_found() -> None:
    key, rows = np.array([[0], [1], [5]], dtype=np.float32), np.array([[10], [20], [30]], dtype=np.float32)
    book = Codebook(key, rows, np.array([0, 0, 1]))
    assert book.nearest_mean(np.zeros((1, 1), np.float32), 1, skip=0).item() == 30.0


def test_keys_are_independent_of_the_folder_mean() -> None:
    rows = noise(torch.Generator().manual_seed(3), 9, 48)
    fine = np.zeros((9, 4), np.float32)
    shifted = key_vectors(rows + 7 * TILT.T, fine, rows.mean(axis=0) + 7 * TILT[:, 0])
    np.testing.assert_allclose(shifted, key_vectors(rows, fine, rows.mean(axis=0)), atol=1e-4)


def test_fixed_filter_between_folders_is_recovered(
    takes: list[Features], folders: tuple[FolderStatistics, FolderStatistics]
) -> None:
    reference, source = folders
    take = source.prior_features(takes[3])
    gain = map_to_other(take, source, reference, SETTINGS, 10.0)[:, take.audible]
    sounding = slice(8, None)  # the instrument has nothing below 110 Hz
    actual, expected_db = gain.mean(axis=1)[sounding], TILT[sounding, 0]
    assert np.corrcoef([actual, expected_db])[0, 1] > 0.75


def test_mask_is_independent_of_level(
    takes: list[Features], folders: tuple[FolderStatistics, FolderStatistics]
) -> None:
    reference, source = folders
    quiet = takes[3]._replace(rows_db=takes[3].rows_db - 20)
    masks = [
        map_to_other(source.prior_features(t), source, reference, SETTINGS, 10.0) for t in (takes[3], quiet)
    ]
    # Rounding may turn one of many neighbours into another that is as near.
    difference = np.abs(masks[0] - masks[1])
    assert difference.max() < 0.1
    assert np.square(difference).mean() < 5e-3**2


def test_back_translation_uses_frames_of_the_other_folder(
    takes: list[Features], folders: tuple[FolderStatistics, FolderStatistics]
) -> None:
    reference, source = folders
    take = reference.prior_features(tilted(takes)[0])
    pseudo = back_translate(take, reference, source, 10.0)
    slopes = [float((t.rows_db[:, t.audible].mean(axis=1) * TILT[:, 0]).mean()) for t in (take, pseudo)]
    assert slopes[1] < slopes[0]
    assert np.array_equal(pseudo.fine, take.fine)


def test_pitch_keys_are_means_over_spans_of_the_take() -> None:
    fine = noise(torch.Generator().manual_seed(5), 3, 60)
    keys = pitch_keys(fine)
    assert keys.shape == (60, 5 * 3)
    for frame in (0, 5, 30, 59):
        expected = [2 * fine[:, frame]]
        for first, last in ((-24, -9), (-8, -3), (3, 8), (9, 24)):
            start, end = np.clip([frame + first, frame + last], 0, 59)
            expected.append(1.4 * fine[:, start : end + 1].mean(axis=1))
        np.testing.assert_allclose(keys[frame], np.concatenate(expected), atol=1e-5)
    assert np.array_equal(pitch_keys(fine, surroundings=False), fine.T)


def test_notes_before_and_after_tell_equal_frames_apart() -> None:
    """Each of two melodies has the same note in its middle; it is found in its own melody."""
    middle, above, below = np.eye(3, dtype=np.float32)[:, :, None]
    melodies = [np.repeat(note, 30, axis=1) for note in (above, below)]
    rows = np.zeros((4, 90), np.float32)
    takes = [np.concatenate([melody, np.repeat(middle, 30, axis=1), melody], axis=1) for melody in melodies]
    keys = [key_vectors(rows.T, pitch_keys(fine), rows[:, 0]) for fine in takes]
    labels = np.repeat(np.array([[1], [2]], np.float32), 90, axis=0)
    book = Codebook(np.concatenate(keys), labels, np.repeat([0, 1], 90))
    for label, key in zip((1, 2), keys, strict=True):
        assert np.array_equal(book.nearest_mean(key[40:50], 1), np.full((1, 10), label, np.float32))


def test_frames_without_surroundings_are_keys_of_their_own(
    folders: tuple[FolderStatistics, FolderStatistics], takes: list[Features]
) -> None:
    folder = folders[1]
    single = folder.without_surroundings()
    assert folder.compares_surroundings
    assert not single.compares_surroundings
    take = folder.prior_features(takes[2])
    expected = key_vectors(take.rows_db.T, take.fine.T, folder.row_mean, surroundings=False)
    np.testing.assert_allclose(single.query_vectors(take), expected, atol=1e-5)
    assert single.fine_spread == pytest.approx(folder.fine_spread, rel=1e-5)
    np.testing.assert_allclose(single.without_surroundings().codebook.key, single.codebook.key, atol=1e-5)


def test_condensed_codes_are_means_of_their_members(
    folders: tuple[FolderStatistics, FolderStatistics],
) -> None:
    folder = condense_codebook(folders[0], 16, torch.Generator().manual_seed(4))
    assert folder.codebook.key.shape[0] == 16
    again = key_vectors(
        folder.codebook.rows_db, folder.codebook.key[:, 48:], folder.row_mean
    )  # a code's key follows from its rows and its fine structure: only these are stored
    np.testing.assert_allclose(again, folder.codebook.key, atol=1e-3)
    assert condense_codebook(folders[0], 10_000, torch.Generator()) is folders[0]


def test_activity_fades_between_45_and_60_db() -> None:
    level = np.array([0, -30, -45, -52.5, -60, -90], dtype=np.float32)
    np.testing.assert_allclose(activity_from_level(level), [1, 1, 1, 0.5, 0, 0])
