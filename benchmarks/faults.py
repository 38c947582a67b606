"""Enhance an archive while its workers and its client are killed (-9) at random moments.

    python benchmarks/faults.py                 # some minutes
    python benchmarks/faults.py --rounds 10 --files 60

A round starts `tonewood enhance --workers 2`, kills a worker once or twice and then the client.
After all rounds the command runs once more without disturbance. Its outputs are then checked, and the
exit code is 1 if one is wrong.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `campaigns` is found

from campaigns.harness.audio import instrument
from campaigns.harness.load.process import worker_processes
from tonewood.audio_io.recording import file_sha256
from tonewood.batch import results_table
from tonewood.enhancement import recipe

RATE, TIMEOUT_S = 22_050, 600.0


def write_inputs(folder: Path, files: int, seconds: float) -> None:
    """Write synthetic recordings and one damaged file."""
    for number in range(files):
        soundfile.write(folder / f"{number:04}.wav", instrument(seconds, RATE, seed=number).T, RATE)
    (folder / "bad.wav").write_text("not a recording")


def start(takes: Path, out: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tonewood", "enhance", takes, "-o", out, "--workers", "2", "--force"]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def count_outputs(out: Path) -> int:
    return len(list(out.glob("*.wav")))


def disturb(takes: Path, out: Path, rng: random.Random) -> tuple[int, bool]:
    """Kill workers, then the client; return the number of workers, and whether the client was running."""
    client = start(takes, out)
    killed = 0
    deadline = time.monotonic() + 60
    before = count_outputs(out)
    while client.poll() is None and count_outputs(out) == before and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(rng.uniform(0, 3))
    for _ in range(rng.randint(1, 2)):
        workers = worker_processes(client.pid)
        if workers and client.poll() is None:
            os.kill(rng.choice(workers), signal.SIGKILL)
            killed += 1
        time.sleep(rng.uniform(1, 4))
    workers, running = worker_processes(client.pid), client.poll() is None
    if running:
        client.kill()
    _, errors = client.communicate(timeout=TIMEOUT_S)
    if not running:
        print(errors.splitlines()[-1:])
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    return killed, running


def find_faults(takes: Path, out: Path) -> list[str]:
    """List what is wrong after the last run."""
    rows = {Path(row.path).name: row for row in results_table.read_results(out / "tonewood.parquet")}
    faults = [f"{path.name} is in no row" for path in takes.iterdir() if path.name not in rows]
    expected = {"tonewood.parquet"}
    for name, row in rows.items():
        if row.error is not None:
            faults += [] if name == "bad.wav" else [f"{name}: {row.error}"]
            continue
        record = recipe.load_recipe(out / (name + recipe.RECIPE_SUFFIX))
        digests = file_sha256(out / name), file_sha256(takes / name)
        if (record.output_sha256, record.input.sha256) != digests:
            faults.append(f"{name} differs from the record in its recipe")
        expected |= {name, name + recipe.RECIPE_SUFFIX}
    return faults + [f"{path.name} is left" for path in out.iterdir() if path.name not in expected]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        takes, out = Path(folder) / "in", Path(folder) / "out"
        takes.mkdir()
        write_inputs(takes, options.files, options.seconds)
        workers = clients = 0
        for _ in range(options.rounds):
            killed, running = disturb(takes, out, rng)
            workers, clients = workers + killed, clients + running
            unfinished = len(list(out.glob(".tonewood-*"))) if out.exists() else 0
            outputs = f"{count_outputs(out)} outputs, {unfinished} unfinished"
            print(f"killed {killed} workers, client {running}; {outputs}", flush=True)
        last = start(takes, out)
        last.communicate(timeout=TIMEOUT_S)
        faults = find_faults(takes, out)
    print(f"{workers} workers and {clients} clients killed; {len(faults)} faults at the end")
    for line in faults:
        print(line)
    return 1 if faults or last.returncode != 1 else 0  # 1: bad.wav is listed


if __name__ == "__main__":
    raise SystemExit(main())
