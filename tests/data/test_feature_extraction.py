"""Features extracted in blocks equal those of the whole recording, in constant memory."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.conftest import instrument
from tonewood.audio_io.recording import resample
from tonewood.data.feature_cache import (
    ExtractedFeatures,
    extract_audit_features,
    extract_features,
    open_recording,
    summarize_recording,
)
from tonewood.data.manifest import ExcerptReader, ManifestEntry
from tonewood.data.normalization import normalize_recording
from tonewood.dsp.chunking import ArrayTimeSeries
from tonewood.dsp.features import CompactFeatures, compute_features, long_term_spectra
from tonewood.dsp.recording_quality import RecordingQuality, measure_quality
from tonewood.settings import ModelSettings, Normalization
from tonewood.utils.arrays import to_mono

SETTINGS = ModelSettings()
RATE = 22_050
FIX = Normalization(loudness=-30.0, cutoff_hz=6_000.0, floor_bands_db=(-70.0,) * 24)
Samples = NDArray[np.float32]


class Written(NamedTuple):
    """Recording of a little more than one chunk, and its file."""

    path: Path
    samples: Samples


@pytest.fixture(params=[1, 3], ids=lambda channels: f"{channels} channels")
def take(request: pytest.FixtureRequest, tmp_path: Path) -> Written:
    wave = instrument(23.3, RATE, request.param, seed=5)
    wave[:, 5 * RATE : 6 * RATE] *= 1e-3  # a rest, so that there is a floor
    wave = np.clip(wave, -0.06, 0.06)
    path = tmp_path / "take.wav"
    soundfile.write(path, wave.T, RATE, "FLOAT")
    return Written(path, wave)


def same_traces(mine: RecordingQuality, other: RecordingQuality) -> None:
    for name, a, b in zip(mine._fields, mine, other, strict=True):
        if a is None or b is None:
            assert a is b, name
            continue
        values = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        assert np.allclose(*values, rtol=1e-9, atol=1e-5, equal_nan=True), name


def same_as_whole(it: ExtractedFeatures, samples: Samples) -> None:
    wave = resample(to_mono(samples), RATE, SETTINGS.spectrum.rate)
    whole = CompactFeatures.from_features(compute_features(wave, SETTINGS.scorer.bands, SETTINGS.spectrum))
    for mine, other in zip(it.to_memory().features, whole, strict=True):
        assert mine.shape == other.shape
        assert np.abs(mine - other).max() < 5e-5
    same_traces(it.traces, measure_quality(samples, RATE))
    window = SETTINGS.spectrum.to_frames(SETTINGS.scorer.crop_seconds)
    assert np.allclose(it.spectra, long_term_spectra(ArrayTimeSeries(whole.rows_db), window), atol=1e-6)
    assert it.seconds == samples.shape[1] / RATE


def test_features_of_blocks_equal_features_of_the_whole(take: Written) -> None:
    item = extract_features(take.path, SETTINGS, None)
    same_as_whole(item, take.samples)
    assert item.digest == hashlib.sha256(take.samples.tobytes()).hexdigest()
    assert item.traces.floor_db is not None
    assert item.traces.clips > 100
    audited = extract_audit_features(take.path, SETTINGS)
    assert (audited.digest, audited.traces.clips) == (item.digest, item.traces.clips)
    assert np.array_equal(audited.spectra, item.spectra)


def test_normalized_features_equal_those_of_the_whole(take: Written) -> None:
    known = summarize_recording(ExcerptReader(take.path))
    rng = np.random.default_rng(int(known.digest[:16], 16))
    whole = normalize_recording(take.samples, RATE, known.traces, FIX, rng)
    mended = open_recording(take.path, FIX)
    for _ in range(2):  # and it is the same whenever it is run through
        actual = np.concatenate(list(mended.blocks()), axis=1)
        assert np.allclose(actual, whole, rtol=0, atol=1e-7)
    item = extract_features(take.path, SETTINGS, FIX)
    assert item.digest == known.digest
    same_as_whole(item, whole)


def test_features_of_an_excerpt_equal_those_of_a_file(take: Written) -> None:
    item = extract_features(ManifestEntry(take.path, None, 1.5, 22.7, 2), SETTINGS, None)
    piece = np.ascontiguousarray(take.samples[:, round(1.5 * RATE) : round(22.7 * RATE)])
    same_as_whole(item, piece)
    assert item.digest == hashlib.sha256(piece.tobytes()).hexdigest()


MEASURE = """
import resource, sys
from pathlib import Path
from tonewood.data.feature_cache import FeatureCache
from tonewood.data.dataset import load_dataset
from tonewood.settings import ModelSettings
cache = FeatureCache(Path(sys.argv[1]))
for folder in sys.argv[2:]:
    for progress in load_dataset(Path(folder), ModelSettings(), cache=cache):
        assert progress.take.rows_db.shape[1] > 0
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="its unit of memory is known there")
def test_memory_does_not_grow_with_the_duration(tmp_path: Path) -> None:
    folders = []
    note = instrument(60.0, 8_000, seed=1).T
    for minutes in (1, 5):
        folders.append(tmp_path / f"{minutes}")
        folders[-1].mkdir()
        with soundfile.SoundFile(folders[-1] / "long.wav", "w", 8_000, 1) as out:
            for _ in range(minutes):
                out.write(note)
    command: list[str | Path] = [sys.executable, "-c", MEASURE, tmp_path / "cache", *folders]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    peaks = list(map(float, ran.stdout.split()))
    # Read whole, each minute more took 39 MB more. The allocator keeps some from time to time.
    assert peaks[1] < peaks[0] + 60
