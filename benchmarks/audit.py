"""Test the audit: planted differences, false alarms on two halves of one folder, and fixes.

    python benchmarks/audit.py FOLDER[,FOLDER] … [--halvings 100] [--plantings 20] [--docs PAGE]

Folders joined by a comma count as one. A folder's recordings are drawn into two halves: different
takes of one instrument in one room. Unchanged halves do not differ, so every reported confound is a
false alarm. Then a difference is planted in one half, and the audit must name it.
"""

import argparse
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import soundfile
from scipy.signal import butter, fftconvolve, sosfiltfilt

from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import Recording, file_sha256, find_audio_files
from tonewood.audit.pipeline import CONFOUNDS, AuditResult, analyse_confounds
from tonewood.audit.report import plot_feature_distributions, plot_folder_spectra
from tonewood.data import normalization
from tonewood.data.dataset import AuditFeatures
from tonewood.dsp.chunking import ArrayTimeSeries
from tonewood.dsp.features import band_levels, long_term_spectra
from tonewood.dsp.recording_quality import measure_quality
from tonewood.settings import ModelSettings

SETTINGS = ModelSettings()
BEGIN, END = "<!-- audit:begin -->", "<!-- audit:end -->"


class Plant(NamedTuple):
    """A planted difference: the change, the names of its findings, and its fix."""

    title: str
    apply: Callable
    names: tuple[str, ...]
    fix: tuple[str, ...] = ()


def low_pass(wave, rate, rng):
    sections = butter(8, min(16_000, 0.42 * rate), fs=rate, output="sos")
    return sosfiltfilt(sections, wave)


def add_hum(wave, rate, rng):
    time = np.arange(wave.shape[1]) / rate
    return wave + 10 ** (-70 / 20) * np.sqrt(2) * np.sin(2 * np.pi * 50 * time)


def soften(wave, rate, rng):
    return wave * 10 ** (-3 / 20)


def add_noise(wave, rate, rng):
    return wave + 10 ** (-70 / 20) * rng.standard_normal(wave.shape)


def encode_mp3(wave, rate, rng):
    """Encode as mp3 and decode."""
    # libsndfile spreads its levels from 1 to 0 over the rates that the MPEG version knows.
    bitrate, low, high = (64, 32, 320) if rate >= 32_000 else (32, 8, 160)
    stream = io.BytesIO()
    soundfile.write(
        stream,
        wave.T,
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=1 - (bitrate - low) / (high - low),
    )
    stream.seek(0)
    return soundfile.read(stream, always_2d=True)[0].T


def add_reverberation(wave, rate, rng, seconds=1.0, direct_db=3.0):
    """Add reverberation: noise that decays by 60 dB in the given seconds."""
    time = np.arange(round(seconds * rate)) / rate
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.square(tail).sum())
    response = np.concatenate([[1.0], np.zeros(round(0.004 * rate)), tail])
    wet = fftconvolve(wave, response[None], axes=1)[:, : wave.shape[1]]
    return wet * np.sqrt(np.square(wave).mean() / np.square(wet).mean())


PLANTS = (
    Plant("3 dB softer", soften, ("level",), ("level",)),
    Plant("low-pass at 16 kHz (24 kHz takes: 10 kHz)", low_pass, ("bandwidth",), ("bandwidth",)),
    Plant("50 Hz hum at -70 dBFS", add_hum, ("hum",)),
    Plant("white noise at -70 dBFS", add_noise, ("noise floor", "noise colour"), ("noise",)),
    Plant("mp3 at 64 kb/s (24 kHz takes: 32 kb/s)", encode_mp3, ("bandwidth", "codec")),
    Plant("a room: 1 s, 3 dB below the direct sound", add_reverberation, ("reverberation",)),
)


def measure_features(
    recording: Recording, wave: np.ndarray | None = None, *, bits: int = 16
) -> AuditFeatures:
    if wave is not None:
        full = 2 ** (bits - 1)
        quantized = np.clip(np.round(wave * full), -full, full - 1) / full
        recording = replace(recording, samples=quantized.astype(np.float32))
    rate = SETTINGS.spectrum.rate
    rows = band_levels(recording.at_rate(rate), rate, SETTINGS.scorer.bands, SETTINGS.spectrum)
    frames = SETTINGS.spectrum.to_frames(SETTINGS.scorer.crop_seconds)
    quality = measure_quality(recording.samples, recording.rate)
    return AuditFeatures(
        path=recording.path,
        session=".",
        digest=file_sha256(recording.path),
        format=recording.format,
        traces=quality,
        spectra=long_term_spectra(ArrayTimeSeries(rows), frames),
    )


def split_in_halves(count: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    order = rng.permutation(count).tolist()
    return order[: count // 2], order[count // 2 :]


def reported_names(audit) -> set[str]:
    return {*audit.names_with_verdict("beware"), *audit.names_with_verdict("confounded")}


def measure_folders(folders: str, options: argparse.Namespace) -> dict:
    recordings = [read_recording(path) for folder in folders.split(",") for path in find_audio_files(folder)]
    plain = [measure_features(recording) for recording in recordings]
    rng = np.random.default_rng(0)
    alarms: Counter = Counter()
    false_alarms = 0
    for _ in range(options.halvings):
        first, second = split_in_halves(len(plain), rng)
        audit = analyse_confounds([plain[k] for k in first], [plain[k] for k in second], rng)
        reported = reported_names(audit)
        false_alarms += bool(reported)
        alarms.update(reported)
    rows = []
    for plant in PLANTS:
        changed_waves = [
            plant.apply(recording.samples.astype(np.float64), recording.rate, np.random.default_rng(k))
            for k, recording in enumerate(recordings)
        ]
        planted = list(map(measure_features, recordings, changed_waves))
        if options.docs and plant.apply is add_noise:
            draw(plain, planted, options.docs.parent / "images")
        detected, confounded, others = 0, 0, Counter()
        for _ in range(options.plantings):
            first, second = split_in_halves(len(plain), rng)
            audit = analyse_confounds([plain[k] for k in first], [planted[k] for k in second], rng)
            detected += bool(reported_names(audit) & set(plant.names))
            confounded += bool(set(audit.names_with_verdict("confounded")) & set(plant.names))
            others.update(reported_names(audit) - set(plant.names))
        remaining = [
            is_reported_after_fix(recordings, changed_waves, plain, planted, plant, rng) for _ in range(3)
        ]
        rows.append(
            {
                "plant": plant.title,
                "found": detected / options.plantings,
                "confounded": confounded / options.plantings,
                "others": {name: n / options.plantings for name, n in others.items()},
                "left": None if not plant.fix else sum(remaining) / len(remaining),
            }
        )
        print(f"{folders}  {rows[-1]}", file=sys.stderr, flush=True)
    return {
        "recordings": len(recordings),
        "rate": recordings[0].rate,
        "halvings": options.halvings,
        "plantings": options.plantings,
        "false_alarms": false_alarms / options.halvings,
        "alarms": dict(alarms),
        "plants": rows,
    }


def is_reported_after_fix(recordings, changed_waves, plain, planted, plant: Plant, rng) -> bool:
    """Return whether the difference is still reported after the fix of both halves."""
    if not plant.fix:
        return False
    first, second = split_in_halves(len(plain), rng)
    sides = [plain[k].traces for k in first], [planted[k].traces for k in second]
    fix = normalization.fit_normalization(plant.fix, *sides)
    samples = [recording.samples for recording in recordings], changed_waves
    fixed = [
        [
            _normalize(recordings[k], waves[k], quality, fix, rng)
            for k, quality in zip(half, side, strict=True)
        ]
        for half, side, waves in zip((first, second), sides, samples, strict=True)
    ]
    return bool(reported_names(analyse_confounds(*fixed, rng)) & set(plant.names))


def _normalize(recording: Recording, wave: np.ndarray, quality, fix, rng) -> AuditFeatures:
    """Measure a recording whose samples are replaced and normalised; 24 bits keep what the fix adds."""
    fixed = normalization.normalize_recording(wave.astype(np.float32), recording.rate, quality, fix, rng)
    return measure_features(recording, fixed, bits=24)


def draw(plain: list[AuditFeatures], planted: list[AuditFeatures], images: Path) -> None:
    """Draw the pictures of a report on recordings, half of them with added hiss."""
    first, second = plain[::2], planted[1::2]
    audit = analyse_confounds(first, second, np.random.default_rng(0))
    result = AuditResult(audit, (Path("as they are"), Path("with a hiss")), first, second)
    floor = next(confound for confound in CONFOUNDS if confound.name == "noise floor")
    (images / "audit-spectra.png").write_bytes(plot_folder_spectra(result))
    (images / "audit-floor.png").write_bytes(plot_feature_distributions(floor.features, result))


def format_tables(results: dict[str, dict]) -> str:
    """Return Markdown of all corpora: false alarms, then detections of each difference."""
    lines = ["| folder | takes | rate, Hz | halvings | false alarms |", "|---|---:|---:|---:|---|"]
    for name, result in results.items():
        alarms = ", ".join(f"{confound} {n}" for confound, n in sorted(result["alarms"].items()))
        share = f"{100 * result['false_alarms']:.0f} %" + (f" ({alarms})" if alarms else "")
        numbers = f"{result['recordings']} | {result['rate']} | {result['halvings']}"
        lines.append(f"| {name} | {numbers} | {share} |")
    names = [name.split("/")[0] for name in results]
    lines += ["", f"| planted | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for rows in zip(*(result["plants"] for result in results.values()), strict=True):
        lines.append(f"| {rows[0]['plant']} | {' | '.join(map(_cell, rows))} |")
    return "\n".join(lines)


def _cell(row: dict) -> str:
    """Return the percentages of detections, of verdicts "confounded", and of other names."""
    others = ", ".join(f"{name} {100 * n:.0f}" for name, n in sorted(row["others"].items()))
    left = f"; {100 * row['left']:.0f} after `--fix`" if row["left"] else ""
    cell = f"{100 * row['found']:.0f} / {100 * row['confounded']:.0f}{left}"
    return f"{cell}; {others}" if others else cell


def name_folders(folders: str) -> str:
    return ", ".join("/".join(Path(folder).resolve().parts[-3:]) for folder in folders.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+")
    parser.add_argument("--halvings", type=int, default=100)
    parser.add_argument("--plantings", type=int, default=20)
    parser.add_argument("--docs", type=Path, help="page to fill")
    options = parser.parse_args()
    results = {name_folders(folders): measure_folders(folders, options) for folders in options.folder}
    tables = format_tables(results)
    print(tables)
    if options.docs:
        page = options.docs.read_text()
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        options.docs.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")
        options.docs.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
