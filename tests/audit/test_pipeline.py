"""Confounds planted in otherwise equal folders, and the normalizations that remove them."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt

from tonewood.audit import pipeline
from tonewood.audit.pipeline import (
    CONFOUNDS,
    AuditResult,
    analyse_confounds,
    confound_warnings,
    format_remedy,
)
from tonewood.data import dataset, normalization
from tonewood.data.dataset import AuditFeatures
from tonewood.data.loading import RecordingProgress
from tonewood.errors import CallError, FolderError
from tonewood.model.card import ConfoundAudit, summarize_audit
from tonewood.settings import ModelSettings

RATE = 44_100
EACH = 8
SETTINGS = ModelSettings()
Wave = NDArray[np.float64]
Plant = Callable[[Wave, np.random.Generator], Wave]


@cache
def note(pitch: int) -> Wave:
    at = np.arange(round(0.7 * RATE)) / RATE
    hz = 110 * 2 ** (pitch / 12) * np.arange(1, 100)
    hz = hz[hz < 19_000]
    shape = np.minimum(1, 40 * at) * np.where(at < 0.35, 1.0, 10 ** (-15 * (at - 0.35)))
    output: Wave = 0.1 * shape * ((1 / np.arange(1, len(hz) + 1)) @ np.sin(2 * np.pi * hz[:, None] * at))
    return output


def take(seed: int, seconds: float = 8.0) -> Wave:
    """Notes of one instrument under a hiss at -72 dBFS, with rests between the phrases."""
    rng = np.random.default_rng(seed)
    wave = 10 ** (-72 / 20) * rng.standard_normal(round(seconds * RATE))
    start = 0.1
    while start < seconds - 0.8:
        played = note(int(rng.integers(0, 24)))
        wave[round(start * RATE) :][: len(played)] += played
        start += 0.4 if rng.random() < 0.7 else 1.2
    return wave


def write(folder: Path, first: int, plant: Plant | None = None, count: int = EACH) -> Path:
    folder.mkdir(parents=True)
    for seed in range(first, first + count):
        wave = take(seed)
        if plant is not None:
            wave = plant(wave, np.random.default_rng(seed))
        soundfile.write(folder / f"{seed}.wav", wave, RATE, subtype="PCM_16")
    return folder


def extract_features(folder: Path) -> list[AuditFeatures]:
    return [surveyed.audit_features for surveyed in dataset.survey_dataset(folder, SETTINGS)]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clean") / "takes", 0)


@pytest.fixture(scope="module")
def clean_features(clean: Path) -> list[AuditFeatures]:
    return extract_features(clean)


def low_passed(wave: Wave, rng: np.random.Generator) -> Wave:
    filtered: Wave = sosfilt(butter(16, 16_000, fs=RATE, output="sos"), wave)
    return filtered


def hummed(wave: Wave, rng: np.random.Generator) -> Wave:
    return wave + 10 ** (-67 / 20) * np.sin(2 * np.pi * 50 * np.arange(len(wave)) / RATE)


def softer(wave: Wave, rng: np.random.Generator) -> Wave:
    return wave * 10 ** (-4 / 20)


def noisier(wave: Wave, rng: np.random.Generator) -> Wave:
    return wave + 10 ** (-62 / 20) * rng.standard_normal(len(wave))


def in_a_room(wave: Wave, rng: np.random.Generator) -> Wave:
    time = np.arange(RATE) / RATE
    tail = rng.standard_normal(RATE) * 10 ** (-3 * time)
    tail *= 0.7 / np.sqrt(np.square(tail).sum())
    wet = wave + fftconvolve(wave, tail)[: len(wave)]
    output: Wave = wet * np.sqrt(np.square(wave).mean() / np.square(wet).mean())
    return output


def suspicious(audit: ConfoundAudit) -> set[str]:
    return {*audit.names_with_verdict("beware"), *audit.names_with_verdict("confounded")}


PLANTS: list[tuple[Plant, set[str], str]] = [
    (softer, {"level"}, "level"),
    (low_passed, {"bandwidth"}, "bandwidth"),
    (noisier, {"noise floor"}, "noise"),
    (hummed, {"hum"}, ""),
    (in_a_room, {"reverberation"}, ""),
]


@pytest.mark.parametrize(("plant", "names", "fix"), PLANTS, ids=[p[0].__name__ for p in PLANTS])
def test_planted_confound_is_found_and_fixed(
    plant: Plant, names: set[str], fix: Any, clean: Path, clean_features: list[AuditFeatures],
    tmp_path: Path,
) -> None:  # fmt: skip
    source = write(tmp_path / "source", 100, plant)
    planted = extract_features(source)
    audit = analyse_confounds(clean_features, planted, np.random.default_rng(0))
    assert names <= suspicious(audit)
    assert summarize_audit(audit)[0] != "fine"
    if not fix:
        return
    sides = [features.traces for features in clean_features], [features.traces for features in planted]
    plan = normalization.fit_normalization((fix,), *sides)
    first, second = (
        [features.take.audit_features for features in dataset.load_dataset(f, SETTINGS, normalization=plan)]
        for f in (clean, source)
    )
    again = analyse_confounds(first, second, np.random.default_rng(0))
    assert not names & suspicious(again)


def test_halves_of_one_folder_are_fine(clean_features: list[AuditFeatures]) -> None:
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(40):
        order = [clean_features[k] for k in rng.permutation(EACH)]
        alarms += bool(suspicious(analyse_confounds(order[: EACH // 2], order[EACH // 2 :], rng)))
    assert alarms == 0  # four recordings on a side are too few for any verdict
    untested = analyse_confounds(clean_features[:4], clean_features[4:], rng)
    assert untested.verdict == "untested"
    assert summarize_audit(untested)[0].startswith("untested: 4 recordings on one side; each side needs 5")


def test_false_alarms_on_real_recordings_are_rare(corpora: Path) -> None:
    folder = corpora / "real_cello_44k1" / "test" / "good"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    recordings = extract_features(folder)
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(30):
        order = [recordings[k] for k in rng.permutation(len(recordings))]
        half = len(order) // 2
        alarms += bool(suspicious(analyse_confounds(order[:half], order[half:], rng)))
    assert alarms <= 3  # at most 2 % each: four or more of 30 come once in 300


def test_progress_precedes_the_audit(clean: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "source", 200, count=5)
    *events, last = pipeline.audit_folders(clean, source, SETTINGS)
    assert isinstance(last, AuditResult)
    progress = [event for event in events if isinstance(event, RecordingProgress) and event.stage == "survey"]
    assert [(e.side, e.number, e.total) for e in progress] == [
        *(("reference", n, EACH) for n in range(1, EACH + 1)),
        *(("source", n, 5) for n in range(1, 6)),
    ]
    assert last.audit.recordings == (EACH, 5)
    assert last.audit.verdict == "fine"
    assert [finding.name for finding in last.audit.findings] == [c.name for c in CONFOUNDS]
    assert confound_warnings(last.audit) == []
    assert ConfoundAudit.model_validate_json(last.audit.model_dump_json()) == last.audit


def test_inaudible_confound_is_only_a_warning(clean_features: list[AuditFeatures], tmp_path: Path) -> None:
    many = clean_features + extract_features(write(tmp_path / "more", 300, count=4))
    low = extract_features(write(tmp_path / "low", 400, softer, count=12))
    audit = analyse_confounds(many, low, np.random.default_rng(0))
    level, confound = audit.findings[0], CONFOUNDS[0]
    assert level.name == confound.name == "level"
    assert level.accuracy is not None
    assert level.accuracy.low > 0.8
    assert not level.heard
    assert level.verdict == "beware"
    assert "the scorer does not hear it" in format_remedy(level, confound)
    noisy = extract_features(write(tmp_path / "noisy", 500, noisier, count=12))
    noisy_audit = analyse_confounds(many, noisy, np.random.default_rng(0))
    assert noisy_audit.verdict == "confounded"
    warnings = confound_warnings(noisy_audit)
    expected = "confounded: noise floor alone identifies the folder of 100 %"
    assert any(line.startswith(expected) for line in warnings)
    assert "--fix noise" in warnings[0]
    assert not any("exchange" in line for line in warnings)


def test_swapped_folders_are_noticed_by_the_faults_of_the_reference(
    clean_features: list[AuditFeatures], tmp_path: Path
) -> None:
    noisy = extract_features(write(tmp_path / "noisy", 500, noisier, count=12))
    audit = analyse_confounds(noisy, clean_features, np.random.default_rng(0))
    assert confound_warnings(audit)[-1] == (
        "the reference has the poorer recordings (see noise floor): if they are the ordinary sound, exchange "
        "--reference and --source"
    )


def test_sessions_are_top_level_sub_folders(clean: Path, tmp_path: Path) -> None:
    for day, first in (("monday", 600), ("friday", 604)):
        write(tmp_path / "source" / day, first, count=4)
    for day, first in (("may", 700), ("june", 704)):
        write(tmp_path / "reference" / day, first, count=4)
    *_, result = pipeline.audit_folders(tmp_path / "reference", tmp_path / "source", SETTINGS)
    assert isinstance(result, AuditResult)
    assert [(session.side, session.name) for session in result.audit.sessions] == [
        ("reference", "june"), ("reference", "may"), ("source", "friday"), ("source", "monday"),
    ]  # fmt: skip


def test_unusable_folders_are_refused(clean: Path, tmp_path: Path) -> None:
    def audit(reference: Path, source: Path) -> Iterator[Any]:
        return pipeline.audit_folders(reference, source, SETTINGS)

    with pytest.raises(CallError, match="as both folders"):
        list(audit(clean, clean))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "0.wav").write_bytes((clean / "0.wav").read_bytes())
    with pytest.raises(FolderError, match="are the same recording"):
        list(audit(clean, tmp_path / "copy"))
