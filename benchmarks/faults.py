"""Enhance an archive while its workers and its client are killed (-9) at random moments.

    python benchmarks/faults.py                 # some minutes
    python benchmarks/faults.py --rounds 10 --files 60

A round starts `tonewood enhance --workers 2`, kills a worker once or twice and then the client.
The command is then given once more and left alone; what must hold after it is checked, and told.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from tonewood.audio_io.recording import file_sha256
from tonewood.batch import results_table
from tonewood.enhancement import recipe

RATE, LONGEST = 22_050, 600.0


def workers_of(client: int) -> list[int]:
    """Return the running worker processes of a client."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            command = (place / "cmdline").read_bytes()  # empty once it is dead
        except OSError:  # gone meanwhile
            continue
        if parent == client and command and b"resource_tracker" not in command:
            found.append(int(place.name))
    return found


def make(folder: Path, files: int, seconds: float) -> None:
    """Write synthetic recordings and one damaged file."""
    rng = np.random.default_rng(0)
    time_s = np.arange(round(0.5 * RATE)) / RATE
    for number in range(files):
        notes = [
            np.sin(2 * np.pi * 110 * 2 ** (rng.integers(0, 24) / 12) * time_s * k) / k
            for _ in range(round(seconds / 0.5))
            for k in (1,)
        ]
        wave = 0.2 * np.concatenate(notes) + 1e-3 * rng.standard_normal(len(notes) * len(time_s))
        soundfile.write(folder / f"{number:04}.wav", wave, RATE)
    (folder / "bad.wav").write_text("no audio")


def start(takes: Path, out: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tonewood", "enhance", takes, "-o", out, "--workers", "2"]
    return subprocess.Popen(
        list(map(str, [*command, "--force"])),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done_in(out: Path) -> int:
    return len(list(out.glob("*.wav")))


def disturb(takes: Path, out: Path, chance: random.Random) -> tuple[int, bool]:
    """Kill workers, then the client; return the number of workers, and whether the client was running."""
    client = start(takes, out)
    killed = 0
    end = time.monotonic() + 60
    before = done_in(out)
    while client.poll() is None and done_in(out) == before and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(chance.uniform(0, 3))
    for _ in range(chance.randint(1, 2)):
        there = workers_of(client.pid)
        if there and client.poll() is None:
            os.kill(chance.choice(there), signal.SIGKILL)
            killed += 1
        time.sleep(chance.uniform(1, 4))
    going, there = client.poll() is None, workers_of(client.pid)
    if going:
        client.kill()
    _, told = client.communicate(timeout=LONGEST)
    if not going:
        print(told.splitlines()[-1:])
    end = time.monotonic() + 60
    while any(Path(f"/proc/{it}").exists() for it in there) and time.monotonic() < end:
        time.sleep(0.2)
    return killed, going


def faults_of(takes: Path, out: Path) -> list[str]:
    """List what is wrong after the last run."""
    rows = {Path(row.path).name: row for row in results_table.read_results(out / "tonewood.parquet")}
    wrong = [f"{p.name} is in no row" for p in takes.iterdir() if p.name not in rows]
    wanted = {"tonewood.parquet"}
    for name, row in rows.items():
        if row.error is not None:
            wrong += [] if name == "bad.wav" else [f"{name}: {row.error}"]
            continue
        told = recipe.load_recipe(out / (name + recipe.RECIPE_SUFFIX))
        if told.output_sha256 != file_sha256(out / name) or told.input.sha256 != file_sha256(takes / name):
            wrong.append(f"{name} is not what its recipe tells")
        wanted |= {name, name + recipe.RECIPE_SUFFIX}
    return wrong + [f"{p.name} is left" for p in out.iterdir() if p.name not in wanted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    folder = Path(tempfile.mkdtemp())
    try:
        takes, out = folder / "in", folder / "out"
        takes.mkdir()
        make(takes, asked.files, asked.seconds)
        workers = clients = 0
        for _ in range(asked.rounds):
            killed, going = disturb(takes, out, chance)
            workers, clients = workers + killed, clients + going
            left = len(list(out.glob(".tonewood-*"))) if out.exists() else 0
            left_over = f"{done_in(out)} done, {left} half"
            print(f"killed {killed} workers, client {going}; {left_over}", flush=True)
        last = start(takes, out)
        last.communicate(timeout=LONGEST)
        wrong = faults_of(takes, out)
        print(f"{workers} workers and {clients} clients killed; at the end {len(wrong)} wrong")
        for line in wrong:
            print(line)
        return 1 if wrong or last.returncode != 1 else 0  # 1: bad.wav is listed
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    raise SystemExit(main())
