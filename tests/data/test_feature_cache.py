"""Cached features equal new ones, are found again, and are replaced if damaged."""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from numpy.lib.stride_tricks import sliding_window_view
from safetensors import safe_open

from tests.conftest import Folders, instrument
from tonewood.audio_io.recording import find_audio_files
from tonewood.data import dataset, feature_cache
from tonewood.data.dataset import TrainingRecording, select_training_excerpts
from tonewood.data.feature_cache import NO_CACHE, FeatureCache
from tonewood.data.manifest import (
    ExcerptReader,
    FolderOrManifest,
    ManifestEntry,
    ManifestSide,
    RecordingRef,
    recording_path,
)
from tonewood.dsp.features import PITCH_HOP_RATIO, CompactFeatures, compute_features
from tonewood.settings import ModelSettings, Normalization

SETTINGS = ModelSettings()


def load_takes(
    place: FolderOrManifest, cache: FeatureCache, fix: Normalization | None = None
) -> list[TrainingRecording]:
    return [item.take for item in dataset.load_dataset(place, SETTINGS, normalization=fix, cache=cache)]


def same(mine: TrainingRecording, other: TrainingRecording) -> bool:
    evidence = mine.audit_features, other.audit_features
    alike = all(
        np.array_equal(a, np.asarray(b), equal_nan=True) if isinstance(a, np.ndarray) else a == b
        for a, b in zip(evidence[0].traces, evidence[1].traces, strict=True)
    )
    return (
        alike
        and np.array_equal(evidence[0].spectra, evidence[1].spectra)
        and all(np.array_equal(a, b) for a, b in zip(mine.features, other.features, strict=True))
        and (mine.digest, mine.group, mine.seconds) == (other.digest, other.group, other.seconds)
        and evidence[0].format == evidence[1].format
    )


@pytest.mark.parametrize("fix", [None, Normalization(loudness=-30.0, cutoff_hz=3_000.0)])
def test_cached_features_equal_new_ones(
    training_folders: Folders, tmp_path: Path, fix: Normalization | None
) -> None:
    cache = FeatureCache(tmp_path)
    anew = load_takes(training_folders.reference, NO_CACHE, fix)
    for actual in (load_takes(training_folders.reference, cache, fix) for _ in range(2)):
        assert all(same(*pair) for pair in zip(anew, actual, strict=True))


class Reading(NamedTuple):
    """Paths of the recordings that were decoded."""

    paths: list[Path]


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Record which recordings are decoded."""
    seen = Reading([])

    def decoded(item: RecordingRef) -> ExcerptReader:
        seen.paths.append(recording_path(item))
        return ExcerptReader(item)

    monkeypatch.setattr(feature_cache, "ExcerptReader", decoded)
    return seen


def test_renamed_recording_is_found_in_the_cache(
    training_folders: Folders, tmp_path: Path, reading: Reading
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    first = load_takes(training_folders.reference, cache)
    assert len(reading.paths) == len(first)
    elsewhere = tmp_path / "moved"
    elsewhere.mkdir()
    for number, take in enumerate(first):
        (elsewhere / f"{number}.wav").write_bytes(take.path.read_bytes())
    again = load_takes(elsewhere, cache)
    assert len(reading.paths) == len(first)
    assert {take.digest for take in again} == {take.digest for take in first}
    assert {take.path.parent for take in again} == {elsewhere}


def test_settings_excerpt_and_normalization_decide_the_entry(
    training_folders: Folders, tmp_path: Path, reading: Reading
) -> None:
    cache = FeatureCache(tmp_path)
    path = find_audio_files(training_folders.reference)[0]
    piece = ManifestSide(path, "reference", (ManifestEntry(path, None, 0.0, 2.0, 2),))
    whole = ManifestSide(path, "reference", (ManifestEntry(path, None, None, None, 2),))
    load_takes(whole, cache)
    assert load_takes(piece, cache)[0].seconds == 2.0
    load_takes(whole, cache, Normalization(loudness=-30.0))
    other = SETTINGS.replace(scorer=dict(bands=dict(count=40)))
    assert next(dataset.load_dataset(whole, other, cache=cache)).take.rows_db.shape[0] == 40
    assert len(reading.paths) == 4


def test_cache_entries_of_earlier_versions_are_found(tmp_path: Path) -> None:
    # As written by the first version: with other names, every training would analyse all recordings again.
    (tmp_path / "takes").mkdir()
    soundfile.write(tmp_path / "takes" / "a.wav", instrument(1.0).T, 16_000)
    load_takes(tmp_path / "takes", FeatureCache(tmp_path / "cache"), Normalization(cutoff_hz=3_000.0))
    content = (tmp_path / "takes" / "a.wav").read_bytes()
    key = [
        *(1, hashlib.sha256(content).hexdigest(), None, None),
        '{"scale":"mel","count":48,"low_hz":40.0,"high_hz":8000.0}',
        '{"rate":16000,"window_ms":30.0,"hop_ms":10.0,"fft":512,"floor_db":-140.0}',
        '{"loudness":null,"cutoff_hz":3000.0,"floor_bands_db":null}',
        "3.0",
    ]
    (entry,) = (tmp_path / "cache").iterdir()
    assert entry.name == hashlib.sha256(json.dumps(key).encode()).hexdigest() + ".take"
    with safe_open(entry, "pt") as file:
        digest, seconds, audio_format, quality = json.loads(file.metadata()["told"])
        assert {"rows_db", "long_db", "spectra", "floor_bands_db"} <= set(file.keys())
    assert (len(digest), seconds, audio_format) == (64, 1.0, ["WAV", "PCM_16", "FILE", ""])
    assert quality["seconds"] == 1.0


def test_a_damaged_entry_is_made_again(training_folders: Folders, tmp_path: Path, reading: Reading) -> None:
    cache = FeatureCache(tmp_path)
    first = load_takes(training_folders.source, cache)
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        content = path.read_bytes()
        path.unlink()  # it is mapped: another file of its name, not the same one cut short
        path.write_bytes((content[: len(content) // 2], b"", b"{}" * 100)[number % 3])
    again = load_takes(training_folders.source, cache)
    assert all(same(*pair) for pair in zip(first, again, strict=True))
    assert len(reading.paths) == 2 * len(first)


@pytest.mark.skipif(os.name == "nt", reason="folders have no such permissions there")
def test_unwritable_cache_folder_is_not_an_error(training_folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file" / "takes")
    assert load_takes(training_folders.source, cache)


def test_cache_removes_the_least_recently_used_entries(training_folders: Folders, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    with cache.enforce_size():
        takes = load_takes(training_folders.source, cache)
    entries = sorted(tmp_path.iterdir())
    assert len(entries) == len(takes)
    for path in entries:
        os.utime(path, (1, 1))
    path = takes[0].path
    load_takes(ManifestSide(path, "source", (ManifestEntry(path, None, None, None, 2),)), cache)
    largest = max(entry.stat().st_size for entry in entries)
    with FeatureCache(tmp_path, max_bytes=2 * largest).enforce_size():
        pass
    left = list(tmp_path.iterdir())
    assert sum(item.stat().st_size for item in left) <= 2 * largest
    assert any(item.stat().st_mtime > 1 for item in left)


def test_cached_takes_are_mapped_into_memory(training_folders: Folders, tmp_path: Path) -> None:
    load_takes(training_folders.reference, FeatureCache(tmp_path))
    actual = load_takes(training_folders.reference, FeatureCache(tmp_path))  # held while its maps are read
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not tell what is mapped")
    named = maps.read_text()
    assert all(str(path) in named for path in tmp_path.iterdir())
    assert actual


@pytest.mark.parametrize("frames", [300, 301, 302])
def test_compact_features_expand_whole_and_in_part(frames: int) -> None:
    wave = instrument(frames * 160 / 16_000, seed=3)[0]
    features = compute_features(wave, SETTINGS.scorer.bands, SETTINGS.spectrum)
    before = CompactFeatures.from_features(features)
    assert before.long_db.shape[1] == -(-features.rows_db.shape[1] // PITCH_HOP_RATIO)
    for mine, other in zip(before.expand(), features, strict=True):
        assert np.array_equal(mine, other)
    for mine, other in zip(before.expand(100, 201), features, strict=True):
        assert np.array_equal(mine, other[:, 100:201])


def test_incomplete_entry_is_removed_as_stale(tmp_path: Path) -> None:
    # Under a lock that tells a sweep of its writer, and with the permissions of any new file.
    folder = tmp_path / "cache"
    one = tmp_path / "one"
    for place in (folder, one):
        place.mkdir()
    soundfile.write(one / "a.wav", instrument(1.0).T, 16_000)
    left = folder / ".tonewood-0123456789abcdef.take"
    left.write_bytes(b"half")
    cache = FeatureCache(folder)
    with cache.enforce_size():
        assert not left.exists()
        assert len(load_takes(one, cache)) == 1
    (entry,) = folder.iterdir()
    (tmp_path / "plain").touch()
    assert entry.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_excerpts_of_long_folders_depend_on_the_seed(tmp_path: Path) -> None:
    for number in range(3):
        wave = instrument(70.0, seed=number)
        soundfile.write(tmp_path / f"{number}.wav", wave.T, 16_000)
    takes = load_takes(tmp_path, NO_CACHE)
    whole = select_training_excerpts(takes, 1_000, seed=0)
    assert [item.rows_db.shape for item in whole.features] == [take.rows_db.shape for take in takes]
    assert whole.groups == [take.group for take in takes]
    some, weights, groups = select_training_excerpts(takes, 90, seed=0)
    assert weights is None
    assert len(groups) == len(some)
    assert sum(item.rows_db.shape[1] for item in some) / 100 == pytest.approx(90, rel=0.02)
    assert all(item.rows_db.shape[1] == item.fine_db.shape[1] for item in some)
    other = select_training_excerpts(takes, 90, seed=1).features
    again = select_training_excerpts(takes, 90, seed=0).features
    # Every excerpt is a part of a take of its group.
    lowest_row = {take.group: take.features.expand().rows_db[0] for take in takes}
    for item, group in zip(some, groups, strict=True):
        windows = sliding_window_view(lowest_row[group], item.rows_db.shape[1])
        assert (windows == item.rows_db[0]).all(axis=1).any()
    assert all(np.array_equal(a.rows_db, b.rows_db) for a, b in zip(some, again, strict=True))
    assert not all(np.array_equal(a.rows_db, b.rows_db) for a, b in zip(some, other, strict=True))
