"""Long runs: a studio under ten clients' mixed load, and thousands of small files in one process.

    python campaigns/load.py studio [--minutes 30] [--clients 10] [--docs docs/security.md]
    python campaigns/load.py files [--files 2000] [--docs docs/security.md]

The studio is a process of its own, as `tonewood studio` starts it. Clients open pages, upload,
search, cancel, edit, save sessions and open them again, and break connections in the middle of
uploads and downloads. Wanted: no fault, memory that grows by no more than 5 % over the second half
by the straight line that fits best, as many handles and threads at rest as before, and 95 % of
light requests within 200 ms. The exit code is 1 if any of it fails. `make test` runs a share of it
(tests/studio/test_load.py).
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `campaigns` and `tests` are found

from campaigns.harness.audio import instrument
from campaigns.harness.load.clients import Tally, crowd, emptied
from campaigns.harness.load.process import Sample, Watch, children, growth, opened, sample

GROWTH, LIGHT_MS = 0.05, 200.0
_REST_S = 8.0  # for kept connections and pages that may come back to end


def main() -> int:
    """Run one of them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("studio", "files"))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-m", "--model", default="soundfont-cello")
    parser.add_argument("--samples", type=Path, help="file for what was sampled, as JSON")
    parser.add_argument("--docs", type=Path, help="page to fill")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        told, wrong = (studio if asked.what == "studio" else files)(asked, Path(scratch))
    text = f"{os.cpu_count()} cores, shared, load {load:.1f} before. {told}"
    print(text)
    for line in wrong:
        print(f"WRONG: {line}")
    if asked.docs:
        _fill(asked.docs, asked.what, text)
    return 1 if wrong else 0


def studio(asked: argparse.Namespace, folder: Path) -> tuple[str, list[str]]:
    """Load a studio; what is to be told of it, and what is not as it should be."""
    (folder / "home").mkdir()
    command = [
        sys.executable, "-m", "tonewood", "studio", "--port", "0", "--no-browser", "-m",
        asked.model, "--folder", str(folder / "studio"), "--root", str(folder / "home"),
    ]  # fmt: skip
    with (folder / "err").open("wb+") as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            crowd(url, asked.clients, min(60.0, 6 * asked.minutes), asked.seed)
            rested = rest(process.pid, url)
            held = opened(process.pid)
            watch = Watch(process.pid, every_s=max(0.5, asked.minutes * 60 / 600))
            watch.start()
            began = time.perf_counter()
            tally = crowd(url, asked.clients, asked.minutes * 60, asked.seed + 1)
            seconds = time.perf_counter() - began
            samples = watch.stop()
            ended = rest(process.pid, url)
            more = opened(process.pid) - held
            workers = len(children(process.pid))
            alive = process.poll() is None
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()
        err.seek(0)
        said = err.read().decode(errors="replace")
    if asked.samples:
        asked.samples.write_text(json.dumps([dataclasses.astuple(it) for it in samples]))
    wrong = [*tally.faults[:20], *(said.splitlines()[-5:])]
    grown = growth(samples)
    if not alive:
        wrong.append("the server has ended")
    if grown > GROWTH:
        wrong.append(f"memory grew by {100 * grown:.1f} % over the second half")
    if ended.handles > rested.handles or ended.threads > rested.threads:
        wrong.append(f"handles or threads grew: {rested} to {ended}: {dict(more)}")
    if tally.p(0.95) > LIGHT_MS:
        wrong.append(f"95 % of light requests took up to {tally.p(0.95):.0f} ms")
    print(json.dumps({**tally.done, **tally.answers}), f"{workers} workers at the end")
    return _studio_told(asked, seconds, tally, samples, (rested, ended), grown), wrong


def rest(pid: int, url: str) -> Sample:
    """What the server holds when everybody has gone."""
    emptied(url)
    time.sleep(_REST_S)
    return sample(pid)


def _studio_told(
    asked: argparse.Namespace,
    seconds: float,
    tally: Tally,
    samples: list[Sample],
    rests: tuple[Sample, Sample],
    grown: float,
) -> str:
    count = sum(tally.answers.values())
    drops = tally.done["drop_upload"] + tally.done["drop_download"]
    mib = [it.rss / 2**20 for it in samples]
    before, after = rests
    return (
        f"{asked.clients} clients for {seconds / 60:.0f} minutes.\n\n"
        "| | |\n|---|---:|\n"
        f"| requests answered | {count:,} |\n"
        f"| wrong or missing answers | {len(tally.faults)} |\n"
        f"| connections broken by clients | {drops:,} |\n"
        f"| searches, cancelled searches | {tally.done['search'] + tally.done['cancel']:,}, "
        f"{tally.done['cancel']:,} |\n"
        f"| sessions saved and opened again | {tally.done['save']:,} |\n"
        f"| light requests: median, 95 %, maximum | {tally.p(0.5):.0f}, {tally.p(0.95):.0f}, "
        f"{tally.p(1):.0f} ms |\n"
        f"| server memory, MiB: half time, end, maximum | {mib[len(mib) // 2]:.0f}, "
        f"{mib[-1]:.0f}, {max(mib):.0f} |\n"
        f"| linear growth over the second half | {100 * grown:+.1f} % |\n"
        f"| open handles at rest: before, after | {before.handles}, {after.handles} |\n"
        f"| threads at rest: before, after | {before.threads}, {after.threads} |"
    )


def files(asked: argparse.Namespace, folder: Path) -> tuple[str, list[str]]:
    """Enhance a folder of small files in one process; what is told, and what is wrong."""
    (folder / "in").mkdir()
    chance = np.random.default_rng(asked.seed)
    for number in range(asked.files):
        take = instrument(float(chance.uniform(0.5, 1.0)), seed=number)
        soundfile.write(folder / "in" / f"{number:05}.wav", take.T, 16_000)
    command = [
        sys.executable, "-m", "tonewood", "enhance", str(folder / "in"), "-m", asked.model,
        "-o", str(folder / "out"), "--json",
    ]  # fmt: skip
    log = folder / "log"
    began = time.perf_counter()
    with log.open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        watch = Watch(process.pid, every_s=0.5)
        watch.start()
        code = process.wait()
    seconds = time.perf_counter() - began
    samples = watch.stop()
    done = len(list((folder / "out").glob("*.wav")))
    wrong = [] if (code, done) == (0, asked.files) else [f"exit code {code}, {done} files done"]
    steady = samples[len(samples) // 10 :]
    grown = growth(steady)
    halves = [steady[: len(steady) // 2], steady[len(steady) // 2 :]]
    handles = [max(it.handles for it in half) for half in halves]
    threads = [max(it.threads for it in half) for half in halves]
    mib = [it.rss / 2**20 for it in steady]
    if grown > GROWTH:
        wrong.append(f"memory grew by {100 * grown:.1f} % over the second half")
    if handles[1] > handles[0] or threads[1] > threads[0]:
        wrong.append(f"most handles {handles}, most threads {threads} in first and second half")
    return (
        f"{asked.files:,} files of 0.5 to 1 s in one process, {seconds:.0f} s.\n\n"
        "| | |\n|---|---:|\n"
        f"| files done, exit code | {done:,}, {code} |\n"
        f"| memory, MiB: after a tenth, half time, end | {mib[0]:.0f}, "
        f"{mib[len(mib) // 2]:.0f}, {mib[-1]:.0f} |\n"
        f"| linear growth over the second half | {100 * grown:+.1f} % |\n"
        f"| maximum open handles: first, second half | {handles[0]}, {handles[1]} |\n"
        f"| maximum threads: first, second half | {threads[0]}, {threads[1]} |"
    ), wrong


def _fill(page: Path, what: str, text: str) -> None:
    begin, end = f"<!-- long {what}: begin -->\n", f"<!-- long {what}: end -->"
    content = page.read_text(encoding="utf-8")
    head, tail = content.split(begin)[0], content.split(end)[1]
    page.write_text(head + begin + "\n" + text + "\n\n" + end + tail, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
