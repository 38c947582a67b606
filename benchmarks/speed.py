"""Measure speed and memory of Tonewood, of Matchering, and the limits of the machine.

    python benchmarks/speed.py [--docs docs/performance.md] [--scratch FOLDER] [--hours 1 6]
    python benchmarks/speed.py --table docs/performance.json     # the table again, from the figures

Whole processes, as a user starts them, alternate with Matchering's, so that a busy minute of the machine
affects both. The figures are medians of the runs, and of the ratios. Set TONEWOOD_MATCHERING to a Python
that has Matchering (benchmarks/requirements-peers.txt) to compare; without it the ratios are left
out. The long recordings need a disk with 14 GB to spare.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

from speed.processes import (
    TONEWOOD,
    Measured,
    Run,
    enhance_command,
    matchering_command,
    run_timed,
)
from speed.sounds import archives, folders, record

MODEL = "soundfont-cello"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file of figures")
    parser.add_argument("--docs", type=Path, help="page to fill, with its JSON")
    parser.add_argument("--table", type=Path, help="file of figures: only write the table")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp/tonewood-speed"))
    parser.add_argument("--repeats", type=int, default=3, help="repetitions of everything under an hour")
    parser.add_argument("--hours", type=int, nargs="*", default=[1, 6])
    parser.add_argument("--no-short", action="store_true", help="skip the stages")
    parser.add_argument("--no-training", action="store_true")
    parser.add_argument("--train-hours", type=float, help="hours of each folder of the training archive")
    parser.add_argument(
        "--take-minutes",
        type=float,
        nargs="*",
        default=[1.0],
        help="minutes of each recording of the archive",
    )
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    figures = measure(options)
    if options.docs and (before := options.docs.with_suffix(".json")).exists():
        figures = merge_figures(json.loads(before.read_text()), figures)
    if options.docs:
        options.out = options.docs.with_suffix(".json")
        begin, end = "<!-- speed: begin -->\n", "<!-- speed: end -->"
        page = options.docs.read_text()
        head, tail = page.split(begin)[0], page.split(end)[1]
        options.docs.write_text(head + begin + table(figures) + "\n" + end + tail)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures))


def measure_short(options: argparse.Namespace) -> tuple[dict, list[Measured]]:
    """Measure stages, and whole processes on recordings of some minutes."""
    scratch = options.scratch
    takes = {
        name: record(scratch / f"{name}.wav", seconds)
        for name, seconds in (("10 s", 10), ("1 min", 60), ("3 min", 180), ("14 min", 840))
    }
    # In a process of its own: a large parent would lend its children its own peak of memory.
    command = [sys.executable, "-m", "speed.stages", str(takes["1 min"]), MODEL]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as the command line sets it
    process = subprocess.run(
        command, cwd=Path(__file__).parent, env=one_thread, check=True, stdout=subprocess.PIPE
    )
    figures: dict = json.loads(process.stdout)
    measurements = [
        measure_repeats("--help", 0, [*TONEWOOD, "--help"], options.repeats),
        measure_repeats("info", 0, [*TONEWOOD, "info", MODEL], options.repeats),
    ]
    peer = os.environ.get("TONEWOOD_MATCHERING")
    ratios = []
    for name, seconds in (("10 s", 10), ("3 min", 180), ("14 min", 840)):
        ours, theirs = measure_alternately(takes[name], takes["1 min"], scratch, peer, options.repeats)
        measurements.append(Measured(f"enhance {name}", seconds, ours))
        if theirs:
            measurements.append(Measured(f"Matchering {name}", seconds, theirs))
            pairs = list(zip(ours, theirs, strict=True))
            ratios.append(
                {
                    "what": name,
                    "wall": median(a.wall / b.wall for a, b in pairs),
                    "cpu": median(a.cpu / b.cpu for a, b in pairs),
                    "peak": median(a.peak_mb / b.peak_mb for a, b in pairs),
                }
            )
    for options_text in ("", "--steps 0", "--method predicted"):
        command = enhance_command(takes["14 min"], scratch / "out.wav", "-m", MODEL, *options_text.split())
        name = f"enhance {options_text} 14 min, one core".replace("  ", " ")
        one_core = ["env", "TONEWOOD_CORES=1", *command]
        measurements.append(measure_repeats(name, 840, one_core, 1))
    return figures | {"ratios": ratios}, measurements


def measure(options: argparse.Namespace) -> dict:
    scratch = options.scratch
    figures, measurements = ({}, []) if options.no_short else measure_short(options)
    for hours in options.hours:
        long = record(scratch / f"{hours} h.wav", 3_600 * hours)
        command = enhance_command(long, scratch / "out.w64", "-m", MODEL)
        measurements.append(measure_repeats(f"enhance {hours} h", 3_600 * hours, command, 1))
        (scratch / "out.w64").unlink()
        long.unlink()
    if not options.no_training:
        sides = folders(scratch / "folders", 20)
        os.environ["TONEWOOD_CACHE"] = str(scratch / "none yet")
        measurements.append(measure_repeats("train on 20 + 20 min", 2_400, train_command(scratch, *sides), 1))
        shutil.rmtree(scratch / "none yet")
    if options.train_hours:
        hours = options.train_hours
        for minutes in options.take_minutes:
            sides = archives(scratch / f"archives {minutes:g}", hours, minutes)
            os.environ["TONEWOOD_CACHE"] = str(scratch / f"cache {minutes:g}")
            for suffix in ("", ", analysed before"):
                label = f"train on {hours:g} + {hours:g} h of {minutes:g} min each{suffix}"
                measurements.append(measure_repeats(label, 7_200 * hours, train_command(scratch, *sides), 1))
    return figures | {"processes": [measurement.as_dict() for measurement in measurements]}


def merge_figures(before: dict, new: dict) -> dict:
    """Merge new figures with earlier ones."""
    new_processes = {process["what"]: process for process in new["processes"]}
    processes = [new_processes.pop(process["what"], process) for process in before["processes"]]
    return {**before, **new, "processes": [*processes, *new_processes.values()]}


def measure_repeats(what: str, seconds: float, command: list, repeats: int) -> Measured:
    if repeats > 1:
        run_timed(command)  # loads files and code into the system's cache
    measured = Measured(what, seconds, tuple(run_timed(command) for _ in range(repeats)))
    print(f"{what}: {measured.wall:.2f} s, {measured.peak_mb:.0f} MB", flush=True)
    return measured


def train_command(scratch: Path, reference: Path, source: Path) -> list[str | Path]:
    command = [*TONEWOOD, "train", "--reference", reference, "--source", source]
    return [*command, "-o", scratch / "made.tonewood", "--overwrite", "--json"]


def measure_alternately(
    take: Path, reference: Path, scratch: Path, peer: str | None, repeats: int
) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Run Tonewood and Matchering alternately."""
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(run_timed(enhance_command(take, scratch / "out.wav", "-m", MODEL)))
        if peer:
            theirs.append(run_timed(matchering_command(peer, take, reference, scratch / "theirs.wav")))
    return tuple(ours), tuple(theirs)


def table(figures: dict) -> str:
    machine, best = figures["machine"], figures["limits"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores (load {machine['load']} before), NumPy "
        f"{machine['numpy']}; limits of one core: {best['fp32']:.0f} GFLOP/s in fp32, "
        f"{best['bandwidth']:.1f} GB/s.",
        "",
    ]
    if figures["ratios"]:
        lines += [
            "| stereo, 44.1 kHz | wall, of Matchering's | cores' time | peak memory |",
            "|---|---:|---:|---:|",
            *(
                f"| {ratio['what']} | {ratio['wall']:.2f} | {ratio['cpu']:.2f} | {ratio['peak']:.2f} |"
                for ratio in figures["ratios"]
            ),
            "",
        ]
    lines += [
        "| process | × real time | wall, s | cores, s | peak, MB |",
        "|---|---:|---:|---:|---:|",
    ]
    for process in figures["processes"]:
        walls = [run["wall"] for run in process["runs"]]
        speed = f"{process['audio_seconds'] / process['wall']:.0f}" if process["audio_seconds"] else ""
        spread = f"{process['wall']:.2f}"
        if len(walls) > 1:
            spread += f" ({min(walls):.2f} to {max(walls):.2f})"
        figures_of_cores = f"{process['cpu']:.2f} | {process['peak_mb']:.0f}"
        lines.append(f"| {process['what']} | {speed} | {spread} | {figures_of_cores} |")
    lines += [
        "",
        "| stage | ms per second of audio |",
        "|---|---:|",
        *(f"| {process['name']} | {process['milliseconds']:.2f} |" for process in figures["stages"]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
