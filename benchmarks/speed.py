"""Measure speed and memory of Tonewood, of Matchering, and the limits of the machine.

    python benchmarks/speed.py [--docs docs/performance.md] [--scratch FOLDER] [--hours 1 6]
    python benchmarks/speed.py --table docs/performance.json     # the table again, from the figures

Whole processes, as a user starts them, take turns with Matchering's, so that a machine's busy
minute falls on both; medians of the runs, and of the ratios. Set TONEWOOD_MATCHERING to a Python
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

from speed.processes import TONEWOOD, Measured, Run, enhancing, matchering, timed
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
    asked = parser.parse_args()
    if asked.table:
        print(table(json.loads(asked.table.read_text())))
        return
    figures = measure(asked)
    if asked.docs and (before := asked.docs.with_suffix(".json")).exists():
        figures = joined(json.loads(before.read_text()), figures)
    if asked.docs:
        asked.out = asked.docs.with_suffix(".json")
        begin, end = "<!-- speed: begin -->\n", "<!-- speed: end -->"
        page = asked.docs.read_text()
        head, tail = page.split(begin)[0], page.split(end)[1]
        asked.docs.write_text(head + begin + table(figures) + "\n" + end + tail)
    if asked.out:
        asked.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures))


def short(asked: argparse.Namespace) -> tuple[dict, list[Measured]]:
    """Measure stages, and whole processes on recordings of some minutes."""
    scratch = asked.scratch
    takes = {
        name: record(scratch / f"{name}.wav", seconds)
        for name, seconds in (("10 s", 10), ("1 min", 60), ("3 min", 180), ("14 min", 840))
    }
    # In a process of its own: a large parent would lend its children its own peak of memory.
    inside = [sys.executable, "-m", "speed.stages", str(takes["1 min"]), MODEL]
    told = subprocess.run(inside, cwd=Path(__file__).parent, check=True, stdout=subprocess.PIPE)
    figures: dict = json.loads(told.stdout)
    found = [
        several("--help", 0, [*TONEWOOD, "--help"], asked.repeats),
        several("info", 0, [*TONEWOOD, "info", MODEL], asked.repeats),
    ]
    peer = os.environ.get("TONEWOOD_MATCHERING")
    ratios = []
    for name, seconds in (("10 s", 10), ("3 min", 180), ("14 min", 840)):
        ours, theirs = in_turn(takes[name], takes["1 min"], scratch, peer, asked.repeats)
        found.append(Measured(f"enhance {name}", seconds, ours))
        if theirs:
            found.append(Measured(f"Matchering {name}", seconds, theirs))
            pairs = list(zip(ours, theirs, strict=True))
            ratios.append(
                {
                    "what": name,
                    "wall": median(a.wall / b.wall for a, b in pairs),
                    "cpu": median(a.cpu / b.cpu for a, b in pairs),
                    "peak": median(a.peak_mb / b.peak_mb for a, b in pairs),
                }
            )
    out = scratch / "out.wav"
    for name in ("3 min", "14 min"):
        command = enhancing(takes[name], out, "-m", MODEL, "--steps", "0")
        seconds = {"3 min": 180, "14 min": 840}[name]
        found.append(several(f"enhance --steps 0 {name}", seconds, command, asked.repeats))
    return figures | {"ratios": ratios}, found


def measure(asked: argparse.Namespace) -> dict:
    scratch = asked.scratch
    figures, found = ({}, []) if asked.no_short else short(asked)
    for hours in asked.hours:
        long = record(scratch / f"{hours} h.wav", 3_600 * hours)
        command = enhancing(long, scratch / "out.w64", "-m", MODEL)
        found.append(several(f"enhance {hours} h", 3_600 * hours, command, 1))
        (scratch / "out.w64").unlink()
        long.unlink()
    if not asked.no_training:
        sides = folders(scratch / "folders", 20)
        os.environ["TONEWOOD_CACHE"] = str(scratch / "none yet")
        found.append(several("train on 20 + 20 min", 2_400, training(scratch, *sides), 1))
        shutil.rmtree(scratch / "none yet")
    if asked.train_hours:
        hours = asked.train_hours
        for minutes in asked.take_minutes:
            sides = archives(scratch / f"archives {minutes:g}", hours, minutes)
            os.environ["TONEWOOD_CACHE"] = str(scratch / f"cache {minutes:g}")
            for what in ("", ", analysed before"):
                told = f"train on {hours:g} + {hours:g} h of {minutes:g} min each{what}"
                found.append(several(told, 7_200 * hours, training(scratch, *sides), 1))
    return figures | {"processes": [it.plain() for it in found]}


def joined(before: dict, now: dict) -> dict:
    """Merge new figures with earlier ones."""
    anew = {it["what"]: it for it in now["processes"]}
    kept = [anew.pop(it["what"], it) for it in before["processes"]]
    return {**before, **now, "processes": [*kept, *anew.values()]}


def several(what: str, seconds: float, command: list, repeats: int) -> Measured:
    timed(command) if repeats > 1 else None  # files and code once into the system's cache
    measured = Measured(what, seconds, tuple(timed(command) for _ in range(repeats)))
    print(f"{what}: {measured.wall:.2f} s, {measured.peak_mb:.0f} MB", flush=True)
    return measured


def training(scratch: Path, reference: Path, source: Path) -> list[str | Path]:
    command = [*TONEWOOD, "train", "--reference", reference, "--source", source]
    return [*command, "-o", scratch / "made.tonewood", "--overwrite", "--json"]


def in_turn(
    take: Path, reference: Path, scratch: Path, peer: str | None, repeats: int
) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Run Tonewood and Matchering alternately."""
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(timed(enhancing(take, scratch / "out.wav", "-m", MODEL)))
        if peer:
            theirs.append(timed(matchering(peer, take, reference, scratch / "theirs.wav")))
    return tuple(ours), tuple(theirs)


def table(figures: dict) -> str:
    machine, best = figures["machine"], figures["limits"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores (load {machine['load']} before), torch "
        f"{machine['torch']}; limits of one core: {best['fp32']:.0f} GFLOP/s in fp32, "
        f"{best['bf16']:.0f} in bf16, {best['bandwidth']:.1f} GB/s.",
        "",
    ]
    if figures["ratios"]:
        lines += [
            "| stereo, 44.1 kHz | wall, of Matchering's | cores' time | peak memory |",
            "|---|---:|---:|---:|",
            *(
                f"| {it['what']} | {it['wall']:.2f} | {it['cpu']:.2f} | {it['peak']:.2f} |"
                for it in figures["ratios"]
            ),
            "",
        ]
    lines += [
        "| process | × real time | wall, s | cores, s | peak, MB |",
        "|---|---:|---:|---:|---:|",
    ]
    for it in figures["processes"]:
        walls = [run["wall"] for run in it["runs"]]
        speed = f"{it['audio_seconds'] / it['wall']:.0f}" if it["audio_seconds"] else ""
        spread = f"{it['wall']:.2f}"
        if len(walls) > 1:
            spread += f" ({min(walls):.2f} to {max(walls):.2f})"
        lines.append(f"| {it['what']} | {speed} | {spread} | {it['cpu']:.2f} | {it['peak_mb']:.0f} |")
    lines += [
        "",
        "| stage | ms per second of audio |",
        "|---|---:|",
        *(f"| {it['name']} | {it['milliseconds']:.2f} |" for it in figures["stages"]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
