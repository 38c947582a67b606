"""How far does spreading carry: 1 and 2 workers, the cost of a task, what follows for archives.

    python benchmarks/scale.py                       # all of it, some minutes on two free cores
    python benchmarks/scale.py --files 40 --tasks 1000 10000

Writes docs/scaling.md (`-o` elsewhere). Run it with nothing else on the machine: the load average
before each run is told beside it.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np
import soundfile

from tonewood.batch import runner
from tonewood.batch.dask_backend import PART_KEY_PREFIX, DaskWorkers
from tonewood.batch.tasks import EnhanceTask
from tonewood.enhancement.output_files import FileFailure
from tonewood.model.model import Model, load_model
from tonewood.settings import EnhanceSettings

RATE = 44_100
HOURS, WORKERS = 10_000, 100
FILE_SECONDS = 600  # of an archive's file, in the projection


def take(seconds: float, seed: int) -> np.ndarray:
    """A synthetic recording: decaying harmonic notes."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(0.5 * RATE)) / RATE
    notes = []
    for _ in range(round(seconds / 0.5)):
        hz = 110 * 2 ** (rng.integers(0, 24) / 12) * np.arange(1, 30)
        waves = np.sin(2 * np.pi * hz[:, None] * time_s) / np.arange(1, 30)[:, None]
        notes.append(waves.sum(axis=0) * np.exp(-3 * time_s))
    wave = np.concatenate(notes)
    return 0.2 * wave / np.abs(wave).max()


def load_average() -> float:
    return os.getloadavg()[0]


def spread(takes: Path, model: Model, workers: int) -> dict[str, float]:
    """Seconds of a run by so many workers, once they are there and warm."""
    load_before = load_average()
    with tempfile.TemporaryDirectory() as folder, DaskWorkers(workers) as crew:
        warm = [Path(folder) / f"warm{number}.wav" for number in range(2 * workers)]
        for path in warm:
            soundfile.write(path, take(1.0, 0), RATE)
        task = EnhanceTask(EnhanceSettings(force=True))
        list(
            runner.run_batch(
                runner.plan_jobs(warm, Path(folder) / "warm"), task, model, workers=crew
            )
        )
        out = Path(folder) / "out"
        units = runner.plan_jobs([takes], out)
        crew.client.get_task_stream()
        began = time.perf_counter()
        events = runner.run_batch(
            units, task, model, workers=crew, table=out / runner.RESULTS_TABLE_NAME
        )
        *_, tally = events
        took = time.perf_counter() - began
        assert isinstance(tally, runner.BatchProgress)
        assert tally.failed == 0
        lent = sum(
            str(it["key"]).startswith(PART_KEY_PREFIX) for it in crew.client.get_task_stream()
        )
    return {
        "workers": workers, "seconds": took, "load": load_before, "hours": tally.audio_hours, "lent": lent
    }  # fmt: skip


def nothing(model: Model, item: int) -> int:
    return item


def cost(model: Model, tasks: int) -> dict[str, float]:
    """Seconds that the scheduler and we take for tasks that do nothing."""
    with DaskWorkers(2) as crew:
        crew.broadcast_model(model)
        list(crew.run(nothing, model.digest, deque(range(100))))
        load_before = load_average()
        began = time.perf_counter()
        done = sum(not isinstance(it, FileFailure) for _, it in crew.run(
            nothing, model.digest, deque(range(tasks))
        ))  # fmt: skip
        took = time.perf_counter() - began
    assert done == tasks
    return {"tasks": tasks, "seconds": took, "load": load_before}


def page(
    runs: list[dict[str, float]],
    alone: list[dict[str, float]],
    costs: list[dict[str, float]],
    seconds: float,
) -> str:
    """The documentation's page."""
    one, two = runs[0], runs[-1]
    ratio = one["seconds"] / two["seconds"]
    per_task = 1000 * costs[-1]["seconds"] / costs[-1]["tasks"]
    speed = one["hours"] * 3600 / one["seconds"]  # seconds of sound a second, one worker
    files = HOURS * 3600 / FILE_SECONDS
    work = HOURS * 3600 / speed
    hand = files * per_task / 1000
    spread_s = max(work / WORKERS, hand)
    lines = [
        "# Scaling",
        "",
        "Made by `python benchmarks/scale.py`; how to work on archives is told in "
        "[archives](archives.md).",
        "",
        "## Measured",
        "",
        f"Files of {seconds:g} s, mono, 44.1 kHz, by the default method of the bundled model "
        "`cello`; workers were started and warm. "
        f"{os.cpu_count()} cores; the load average before each run tells of other work, and of "
        "this script's own runs before it.",
        "",
        "| workers | files | s | hours of sound a minute | load average before |",
        "|---|---|---|---|---|",
    ]
    for it in runs:
        pace = 60 * it["hours"] / it["seconds"]
        count = round(it["hours"] * 3600 / seconds)
        figures = f"{it['seconds']:.1f} | {pace:.2f} | {it['load']:.1f}"
        lines.append(f"| {it['workers']:.0f} | {count} | {figures} |")
    lines += [
        "",
        f"Two workers are **{ratio:.2f} ×** as fast as one.",
        "",
        f"One recording of {60 * alone[0]['hours']:.0f} minutes, stereo, by as many workers as "
        "have time for its parts:",
        "",
        "| workers | s | parts lent | load average before |",
        "|---|---|---|---|",
        *(
            f"| {it['workers']:.0f} | {it['seconds']:.1f} | {it['lent']:.0f} | {it['load']:.1f} |"
            for it in alone
        ),
        "",
        "What is not lent is what has an order: decoding, encoding, and handing parts out. On two "
        "cores client, scheduler and both workers share what there is.",
        "",
        "Tasks that do nothing, two workers; what is left is the scheduler's cost and ours:",
        "",
        "| tasks | s | ms a task | load average before |",
        "|---|---|---|---|",
    ]
    for it in costs:
        ms = 1000 * it["seconds"] / it["tasks"]
        lines.append(f"| {it['tasks']:,.0f} | {it['seconds']:.1f} | {ms:.2f} | {it['load']:.1f} |")
    lines += [
        "",
        f"## Projected: {HOURS:,} hours, {WORKERS} workers",
        "",
        f"- One worker does {speed:.1f} s of sound a second (measured above): {work / 86_400:.1f} "
        "days for all.",
        f"- {files:,.0f} files of {FILE_SECONDS / 60:.0f} minutes cost the scheduler {hand:.0f} s, "
        f"{100 * hand / (work / WORKERS):.2g} % of the time.",
        f"- **{spread_s / 3600:.1f} hours** by {WORKERS} workers, if all of the following holds:",
        "  - every worker has a core like the one measured, to itself, and sound of one channel at "
        "44.1 kHz;",
        "  - the cost of a task stays what it is with two workers;",
        "  - the store delivers and takes "
        f"{2 * WORKERS * speed * RATE * 2 / 1e6:.0f} MB/s in all (16 bits);",
        "  - no file is so long that the others wait for it at the end: the last file of "
        f"{FILE_SECONDS / 60:.0f} minutes adds up to {FILE_SECONDS / speed:.0f} s.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--minutes", type=int, default=20, help="of the long recording")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    default = Path(__file__).parents[1] / "docs" / "scaling.md"
    parser.add_argument("-o", "--output", type=Path, default=default)
    asked = parser.parse_args()
    model = load_model("cello")
    folder = Path(tempfile.mkdtemp())
    try:
        for number in range(asked.files):
            soundfile.write(folder / f"{number:04}.wav", take(asked.seconds, number), RATE)
        runs = []
        for workers in (1, 2):
            runs.append(spread(folder, model, workers))
            print(runs[-1], flush=True)
        shutil.rmtree(folder)
        folder.mkdir()
        long = np.tile(take(60.0, 0), asked.minutes)
        soundfile.write(folder / "long.flac", np.stack([long, 0.9 * long], axis=1), RATE)
        alone = []
        for workers in (1, 2):
            alone.append(spread(folder, model, workers))
            print(alone[-1], flush=True)
        costs = []
        for tasks in asked.tasks:
            costs.append(cost(model, tasks))
            print(costs[-1], flush=True)
    finally:
        shutil.rmtree(folder)
    asked.output.write_text(page(runs, alone, costs, asked.seconds), encoding="utf-8")
    print(asked.output)


if __name__ == "__main__":
    main()
