"""Test the audit: planted differences, false alarms on two halves of one folder, and fixes.

    python benchmarks/audit.py FOLDER[,FOLDER] … [--halvings 100] [--plantings 20] [--docs PAGE]

Folders joined by a comma count as one. A folder's recordings are drawn into two halves: different
takes of one instrument in one room. As they are, nothing tells the halves apart, and every claim is
a false alarm. Then something is done to one half, and the audit is to name it.
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
import torch
from scipy.signal import butter, fftconvolve, sosfiltfilt

from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import Recording, file_sha256, find_audio_files
from tonewood.audit.pipeline import CONFOUNDS, AuditResult, analyse_confounds
from tonewood.audit.report import plot_feature_distributions, plot_folder_spectra
from tonewood.data import normalization
from tonewood.data.dataset import AuditFeatures
from tonewood.dsp.features import band_levels, long_term_spectra
from tonewood.dsp.recording_quality import measure_quality
from tonewood.settings import ModelSettings

SETTINGS = ModelSettings()
BEGIN, END = "<!-- audit:begin -->", "<!-- audit:end -->"


class Plant(NamedTuple):
    """A planted difference: the change, the names of its findings, and its fix."""

    title: str
    done: Callable
    names: tuple[str, ...]
    fix: tuple[str, ...] = ()


def low_passed(wave, rate, rng):
    sections = butter(8, min(16_000, 0.42 * rate), fs=rate, output="sos")
    return sosfiltfilt(sections, wave)


def hummed(wave, rate, rng):
    time = np.arange(wave.shape[1]) / rate
    return wave + 10 ** (-70 / 20) * np.sqrt(2) * np.sin(2 * np.pi * 50 * time)


def louder(wave, rate, rng):
    return wave * 10 ** (-3 / 20)


def noisier(wave, rate, rng):
    return wave + 10 ** (-70 / 20) * rng.standard_normal(wave.shape)


def coded(wave, rate, rng):
    """Encode as mp3 and decode."""
    # libsndfile spreads its levels from 1 to 0 over the rates that the MPEG version knows.
    wanted, low, high = (64, 32, 320) if rate >= 32_000 else (32, 8, 160)
    stream = io.BytesIO()
    soundfile.write(
        stream,
        wave.T,
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=1 - (wanted - low) / (high - low),
    )
    stream.seek(0)
    return soundfile.read(stream, always_2d=True)[0].T


def reverberated(wave, rate, rng, seconds=1.0, direct_db=3.0):
    """Add reverberation: noise that decays by 60 dB in the given seconds."""
    time = np.arange(round(seconds * rate)) / rate
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.square(tail).sum())
    response = np.concatenate([[1.0], np.zeros(round(0.004 * rate)), tail])
    wet = fftconvolve(wave, response[None], axes=1)[:, : wave.shape[1]]
    return wet * np.sqrt(np.square(wave).mean() / np.square(wet).mean())


PLANTS = (
    Plant("3 dB softer", louder, ("level",), ("level",)),
    Plant("low-pass at 16 kHz (24 kHz takes: 10 kHz)", low_passed, ("bandwidth",), ("bandwidth",)),
    Plant("50 Hz hum at -70 dBFS", hummed, ("hum",)),
    Plant("white noise at -70 dBFS", noisier, ("noise floor", "noise colour"), ("noise",)),
    Plant("mp3 at 64 kb/s (24 kHz takes: 32 kb/s)", coded, ("bandwidth", "codec")),
    Plant("a room: 1 s, 3 dB below the direct sound", reverberated, ("reverberation",)),
)


def evidence(recording: Recording, wave: np.ndarray | None = None, *, bits: int = 16) -> AuditFeatures:
    if wave is not None:
        full = 2 ** (bits - 1)
        kept = np.clip(np.round(wave * full), -full, full - 1) / full
        recording = replace(recording, samples=kept.astype(np.float32))
    rate = SETTINGS.spectrum.rate
    mono = torch.from_numpy(recording.at_rate(rate))
    rows = band_levels(mono, rate, SETTINGS.scorer.bands, SETTINGS.spectrum)
    frames = SETTINGS.spectrum.to_frames(SETTINGS.scorer.crop_seconds)
    found = measure_quality(recording.samples, recording.rate)
    return AuditFeatures(
        path=recording.path,
        session=".",
        digest=file_sha256(recording.path),
        format=recording.format,
        traces=found,
        spectra=long_term_spectra(rows, frames),
    )


def halves(count: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    order = rng.permutation(count).tolist()
    return order[: count // 2], order[count // 2 :]


def claimed(audit) -> set[str]:
    return {*audit.names_with_verdict("beware"), *audit.names_with_verdict("confounded")}


def measured(folders: str, call: argparse.Namespace) -> dict:
    recordings = [read_recording(path) for it in folders.split(",") for path in find_audio_files(it)]
    plain = [evidence(recording) for recording in recordings]
    rng = np.random.default_rng(0)
    alarms: Counter = Counter()
    false = 0
    for _ in range(call.halvings):
        first, second = halves(len(plain), rng)
        names = claimed(analyse_confounds([plain[k] for k in first], [plain[k] for k in second], rng))
        false += bool(names)
        alarms.update(names)
    rows = []
    for plant in PLANTS:
        done = [
            plant.done(it.samples.astype(np.float64), it.rate, np.random.default_rng(k))
            for k, it in enumerate(recordings)
        ]
        planted = [evidence(it, wave) for it, wave in zip(recordings, done, strict=True)]
        if call.docs and plant.done is noisier:
            draw(plain, planted, call.docs.parent / "images")
        hit, sure, others = 0, 0, Counter()
        for _ in range(call.plantings):
            first, second = halves(len(plain), rng)
            audit = analyse_confounds([plain[k] for k in first], [planted[k] for k in second], rng)
            hit += bool(claimed(audit) & set(plant.names))
            sure += bool(set(audit.names_with_verdict("confounded")) & set(plant.names))
            others.update(claimed(audit) - set(plant.names))
        after = [after_fix(recordings, done, plain, planted, plant, rng) for _ in range(3)]
        rows.append(
            {
                "plant": plant.title,
                "found": hit / call.plantings,
                "confounded": sure / call.plantings,
                "others": {name: n / call.plantings for name, n in others.items()},
                "left": None if not plant.fix else sum(after) / len(after),
            }
        )
        print(f"{folders}  {rows[-1]}", file=sys.stderr, flush=True)
    return {
        "recordings": len(recordings),
        "rate": recordings[0].rate,
        "halvings": call.halvings,
        "plantings": call.plantings,
        "false_alarms": false / call.halvings,
        "alarms": dict(alarms),
        "plants": rows,
    }


def after_fix(recordings, done, plain, planted, plant: Plant, rng) -> bool:
    """Return whether the difference is still reported after the fix of both halves."""
    if not plant.fix:
        return False
    first, second = halves(len(plain), rng)
    sides = [plain[k].traces for k in first], [planted[k].traces for k in second]
    fix = normalization.fit_normalization(plant.fix, *sides)
    fixed = [
        [
            evidence(
                recordings[k],
                normalization.normalize_recording(
                    waves[k].astype(np.float32), recordings[k].rate, it, fix, rng
                ),
                bits=24,
            )
            for k, it in zip(half, side, strict=True)
        ]
        for half, side, waves in zip(
            (first, second), sides, ([it.samples for it in recordings], done), strict=True
        )
    ]
    return bool(claimed(analyse_confounds(*fixed, rng)) & set(plant.names))


def draw(plain: list[AuditFeatures], planted: list[AuditFeatures], images: Path) -> None:
    """Draw the pictures of a report on recordings, half of them with added hiss."""
    first, second = plain[::2], planted[1::2]
    audit = analyse_confounds(first, second, np.random.default_rng(0))
    done = AuditResult(audit, (Path("as they are"), Path("with a hiss")), first, second)
    floor = next(it for it in CONFOUNDS if it.name == "noise floor")
    (images / "audit-spectra.png").write_bytes(plot_folder_spectra(done))
    (images / "audit-floor.png").write_bytes(plot_feature_distributions(floor.features, done))


def text(results: dict[str, dict]) -> str:
    """Return Markdown of all corpora: false alarms, then detections of each difference."""
    lines = ["| folder | takes | rate, Hz | halvings | false alarms |", "|---|---:|---:|---:|---|"]
    for name, it in results.items():
        alarms = ", ".join(f"{what} {n}" for what, n in sorted(it["alarms"].items()))
        share = f"{100 * it['false_alarms']:.0f} %" + (f" ({alarms})" if alarms else "")
        lines.append(f"| {name} | {it['recordings']} | {it['rate']} | {it['halvings']} | {share} |")
    names = [name.split("/")[0] for name in results]
    lines += ["", f"| planted | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for rows in zip(*(it["plants"] for it in results.values()), strict=True):
        lines.append(f"| {rows[0]['plant']} | {' | '.join(map(_cell, rows))} |")
    return "\n".join(lines)


def _cell(row: dict) -> str:
    """Return the percentages of detections, of verdicts "confounded", and of other names."""
    others = ", ".join(f"{what} {100 * n:.0f}" for what, n in sorted(row["others"].items()))
    left = f"; {100 * row['left']:.0f} after `--fix`" if row["left"] else ""
    found = f"{100 * row['found']:.0f} / {100 * row['confounded']:.0f}{left}"
    return f"{found}; {others}" if others else found


def name_of(folders: str) -> str:
    return ", ".join("/".join(Path(it).resolve().parts[-3:]) for it in folders.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+")
    parser.add_argument("--halvings", type=int, default=100)
    parser.add_argument("--plantings", type=int, default=20)
    parser.add_argument("--docs", type=Path, help="page to fill")
    call = parser.parse_args()
    torch.set_num_threads(1)
    results = {name_of(it): measured(it, call) for it in call.folder}
    tables = text(results)
    print(tables)
    if call.docs:
        page = call.docs.read_text()
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        call.docs.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")
        call.docs.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
