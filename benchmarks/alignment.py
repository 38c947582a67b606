"""Measure how exactly pairs are aligned: simultaneous pairs, and time-warped ones.

    python benchmarks/alignment.py CORPUS… [--docs docs/evaluate.md] [--minutes 10]

A corpus is a folder laid out as test/{good,cheap} whose pairs are simultaneous. The reference is
warped in time by WSOLA, which copies the waveform piece by piece and so keeps its timbre. The true path
is therefore known. It is compared with the path that the alignment finds, and the distances after
alignment with those of the unwarped pair.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from tonewood.evaluation.alignment import Alignment, align_recordings
from tonewood.evaluation.metrics import MEASURE_RATE, mel_distance, to_mono_16k
from tonewood.evaluation.pipeline import pairs_by_name
from tonewood.utils.arrays import Samples

WARPS = {
    "as it is": (1.0, 0.0),
    "15 % faster": (1.15, 0.0),
    "15 % slower": (1 / 1.15, 0.0),
    "rubato of 15 %": (1.0, 0.15),
    "10 % slower, rubato of 25 %": (0.9, 0.25),
}
WINDOW_S, SEEK_S = 0.040, 0.010
BEGIN, END = "<!-- alignment:begin -->", "<!-- alignment:end -->"


class Warp(NamedTuple):
    """Times before and after a warp, s."""

    before_s: np.ndarray
    after_s: np.ndarray


class PairResult(NamedTuple):
    """Alignment errors of audible frames, s, and distances, dB."""

    error_s: np.ndarray
    before_db: float
    after_db: float
    alignment: Alignment
    warp: Warp


def main() -> None:
    options = parse_options()
    if options.alone:
        print(measure_alone(options.alone))
        return
    table, paragraphs, example = [*TABLE_HEAD], [], None
    for corpus in options.corpus:
        pairs = pairs_by_name(corpus / "test" / "cheap", corpus / "test" / "good")
        waves = [tuple(to_mono_16k(side.samples, side.rate) for side in pair.read()) for pair in pairs]
        for name, (tempo, rubato) in WARPS.items():
            rng = np.random.default_rng(0)
            results = [measure_pair(*both, tempo, rubato, rng) for both in waves]
            table.append(f"| {corpus.name} | {name} " + row(results))
            example = example or (results[0] if rubato else None)
        paragraphs.append(compare_with_other_pieces(corpus.name, waves))
    paragraphs.append(measure_long_pair(waves, options.minutes))
    block = "\n".join([*table, "", *(f"{line}\n" for line in paragraphs)])
    print(block)
    if options.docs:
        before, rest = options.docs.read_text(encoding="utf-8").split(BEGIN)
        text = f"{before}{BEGIN}\n\n{block}\n{END}{rest.split(END)[1]}"
        options.docs.write_text(text, encoding="utf-8")
        draw(example, options.docs.parent / "images" / "alignment.png")


TABLE_HEAD = [
    "| corpus | reference | simultaneous | path error: median, ms | 90 %, ms | worst piece, ms "
    "| distance after / before |",
    "|---|---|---:|---:|---:|---:|---:|",
]


def row(results: list) -> str:
    errors_ms = np.concatenate([result.error_s for result in results]) * 1000
    worst_ms = max(np.median(result.error_s) for result in results) * 1000
    ratios = [result.after_db / result.before_db for result in results]
    exact = sum(result.alignment.exact for result in results)
    return (
        f"| {exact} of {len(results)} | {np.median(errors_ms):.0f} "
        f"| {np.quantile(errors_ms, 0.9):.0f} | {worst_ms:.0f} "
        f"| {np.mean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |"
    )


def measure_pair(
    source: Samples, reference: Samples, tempo: float, rubato: float, rng: np.random.Generator
) -> PairResult:
    length = min(len(source), len(reference))
    source, reference = source[:length], reference[:length]
    before = mel_distance(source, reference)
    warp = draw_warp(length / MEASURE_RATE, tempo, rubato, rng)
    is_warped = (tempo, rubato) != (1.0, 0.0)
    warped = reference
    if is_warped:
        warped, warp = wsola(reference, warp)
    alignment = align_recordings(source, warped)
    times = np.arange(length // 160) * 0.01
    reference_times = alignment.to_reference(times)
    power = np.convolve(source**2, np.ones(480), "same")[: length // 160 * 160 : 160]
    is_audible = np.isfinite(reference_times) & (power > power.max() * 10**-4.5)
    error_s = np.abs(reference_times - np.interp(times, *warp))[is_audible]
    return PairResult(error_s, before, mel_distance(source, warped, alignment.to_reference), alignment, warp)


def draw_warp(seconds: float, tempo: float, rubato: float, rng: np.random.Generator) -> Warp:
    """Draw a tempo with slow and faster deviations."""
    times = np.arange(int(seconds * 100) + 1) / 100
    sway = sum(np.sin(2 * np.pi * (times / period + rng.uniform())) for period in (1.7, 3.7, 9.1))
    pace = tempo * (1 + rubato) ** (sway / 1.7)
    return Warp(times, np.concatenate([[0.0], np.cumsum(1 / pace[:-1]) / 100]))


def wsola(wave: np.ndarray, warp: Warp) -> tuple[np.ndarray, Warp]:
    """Stretch a wave by a warp, by waveform-similarity overlap-add (Verhelst & Roelands 1993).

    Pieces are taken up to 10 ms from the place that the warp gives, on average ahead of it where the wave
    gets longer. The returned warp has their actual places.
    """
    half, seek = round(WINDOW_S * MEASURE_RATE / 2), round(SEEK_S * MEASURE_RATE)
    window, pad = np.hanning(2 * half + 1)[:-1], 2 * half + 2 * seek
    padded = np.pad(wave.astype(np.float64), pad)
    length = int(warp.after_s[-1] * MEASURE_RATE)
    out = np.zeros(length + 4 * half)
    weight = np.zeros_like(out)
    previous, centres = None, []
    for start in range(0, length + half, half):
        centre = np.interp(start / MEASURE_RATE, warp.after_s, warp.before_s) * MEASURE_RATE
        position = round(centre) - half + pad
        if previous is not None:
            continuation = padded[previous + half : previous + 3 * half]
            candidates = padded[position - seek : position + seek + 2 * half]
            if len(continuation) == 2 * half and len(candidates) == 2 * half + 2 * seek:
                energy = np.convolve(candidates**2, np.ones(2 * half), "valid")
                similarity = np.correlate(candidates, continuation, "valid") / np.sqrt(energy + 1e-9)
                position += int(similarity.argmax()) - seek
        piece = padded[position : position + 2 * half]
        if len(piece) < 2 * half:
            break
        out[start : start + 2 * half] += window * piece
        weight[start : start + 2 * half] += window
        previous = position
        centres.append((position + half - pad, start))
    before, after = np.array(centres).T / MEASURE_RATE
    stretched = (out / np.maximum(weight, 1e-3))[half : half + length].astype(np.float32)
    return stretched, Warp(np.maximum.accumulate(before), after)


def compare_with_other_pieces(name: str, waves: list) -> str:
    right_pairs = [align_recordings(*both).quality.similarity for both in waves]
    wrong_pairs = [
        align_recordings(waves[i][0], waves[(i + k) % len(waves)][1]).quality.similarity
        for i in range(len(waves))
        for k in (1, 4, 7)
    ]
    return (
        f"Pitches along the alignment, {name}: agreement {min(right_pairs):.2f} to {max(right_pairs):.2f} "
        f"for {len(right_pairs)} right pairs, {min(wrong_pairs):.2f} to {max(wrong_pairs):.2f} for "
        f"{len(wrong_pairs)} of different pieces."
    )


def measure_long_pair(waves: list, minutes: float) -> str:
    """Align a long pair in a new process."""
    count = int(minutes * 60 * MEASURE_RATE)
    both = []
    for side in range(2):
        whole = np.concatenate([pair[side] for pair in waves])
        both.append(np.tile(whole, -(-count // len(whole)))[:count])
    warp = draw_warp(minutes * 60, 1.1, 0.15, np.random.default_rng(0))
    both[1], warp = wsola(both[1], warp)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "pair.npz", source=both[0], reference=both[1], warp=np.array(warp))
        command = [sys.executable, __file__, "--alone", str(Path(folder) / "pair.npz")]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
    return f"A pair of {minutes:g} minutes: {process.stdout.strip()}"


def measure_alone(pair: Path) -> str:
    """Align one pair and report the time and memory of this process."""
    saved = np.load(pair)
    start_time = time.perf_counter()
    alignment = align_recordings(saved["source"], saved["reference"])
    seconds = time.perf_counter() - start_time
    times = np.arange(0, saved["warp"][0][-1], 0.01)
    error_s = np.nanmedian(np.abs(alignment.to_reference(times) - np.interp(times, *saved["warp"])))
    # Not getrusage: a child's peak there may be its parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    peak = int(status["VmHWM"].split()[0]) / 1000
    return (
        f"{seconds:.0f} s on one core, {peak:.0f} MB at the peak of the whole process, Python and "
        f"libraries included; median path error {1000 * error_s:.0f} ms."
    )


def draw(result: PairResult, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    times = np.arange(0, result.warp.before_s[-1], 0.01)
    axes.plot(times, 1000 * (np.interp(times, *result.warp) - times), label="truth")
    axes.plot(times, 1000 * (result.alignment.to_reference(times) - times), label="found")
    axes.set(xlabel="source, s", ylabel="reference later by, ms")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="*", type=Path)
    parser.add_argument("--docs", type=Path, help="page to fill")
    parser.add_argument("--minutes", type=float, default=10, help="length of the long pair")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    call = parser.parse_args()
    if not call.corpus and not call.alone:
        parser.error("give the folder of a corpus")
    return call


if __name__ == "__main__":
    main()
