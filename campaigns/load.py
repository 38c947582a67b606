"""Long runs: a studio with ten clients, and thousands of small files in one process.

    python campaigns/load.py studio [--minutes 30] [--clients 10] [--docs docs/security.md]
    python campaigns/load.py files [--files 2000] [--docs docs/security.md]

The studio runs in its own process, as `tonewood studio` starts it. Clients open pages, upload, search,
cancel, edit, save sessions and open them again, and break connections during uploads and downloads.
Requirements: no errors; at most 5 % memory growth over the second half, by a fitted straight line; no
more handles and threads at rest than before; 95 % of light requests within 200 ms. The exit code is 1
if one is missed. `make test` runs a short share (tests/studio/test_load.py).
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
from campaigns.harness.load.clients import LoadResult, delete_sessions, run_clients
from campaigns.harness.load.process import Sample, Watch, child_processes, growth, open_files, sample

GROWTH, LIGHT_MS = 0.05, 200.0
_REST_S = 8.0  # until kept connections and sessions of closed pages time out


def main() -> int:
    """Run one campaign; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("studio", "files"))
    parser.add_argument("--minutes", type=float, default=30.0, help="duration of `studio`")
    parser.add_argument("--clients", type=int, default=10, help="clients of `studio`")
    parser.add_argument("--files", type=int, default=2_000, help="number of files of `files`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-m", "--model", default="soundfont-cello")
    parser.add_argument("--samples", type=Path, help="JSON file for the samples")
    parser.add_argument("--docs", type=Path, help="page to fill")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        report, failures = (studio if options.what == "studio" else files)(options, Path(scratch))
    text = f"{os.cpu_count()} cores, shared, load {load:.1f} before. {report}"
    print(text)
    for line in failures:
        print(f"FAILED: {line}")
    if options.docs:
        _fill(options.docs, options.what, text)
    return 1 if failures else 0


def studio(options: argparse.Namespace, folder: Path) -> tuple[str, list[str]]:
    """Run clients on a studio; return a report and the missed requirements."""
    (folder / "home").mkdir()
    command = [
        sys.executable, "-m", "tonewood", "studio", "--port", "0", "--no-browser", "-m",
        options.model, "--folder", str(folder / "studio"), "--root", str(folder / "home"),
    ]  # fmt: skip
    with (folder / "err").open("wb+") as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            run_clients(url, options.clients, min(60.0, 6 * options.minutes), options.seed)
            idle_before = rest(process.pid, url)
            files_before = open_files(process.pid)
            watch = Watch(process.pid, every_s=max(0.5, options.minutes * 60 / 600))
            watch.start()
            start = time.perf_counter()
            result = run_clients(url, options.clients, options.minutes * 60, options.seed + 1)
            seconds = time.perf_counter() - start
            samples = watch.stop()
            idle_after = rest(process.pid, url)
            more = open_files(process.pid) - files_before
            workers = len(child_processes(process.pid))
            alive = process.poll() is None
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()
        err.seek(0)
        error_output = err.read().decode(errors="replace")
    if options.samples:
        options.samples.write_text(json.dumps([dataclasses.astuple(taken) for taken in samples]))
    failures = [*result.errors[:20], *(error_output.splitlines()[-5:])]
    memory_growth = growth(samples)
    if not alive:
        failures.append("the server has exited")
    if memory_growth > GROWTH:
        failures.append(f"memory grew by {100 * memory_growth:.1f} % over the second half")
    if idle_after.handles > idle_before.handles or idle_after.threads > idle_before.threads:
        failures.append(f"handles or threads grew: {idle_before} to {idle_after}: {dict(more)}")
    if result.p(0.95) > LIGHT_MS:
        failures.append(f"95 % of light requests took up to {result.p(0.95):.0f} ms")
    print(json.dumps({**result.done, **result.answers}), f"{workers} workers at the end")
    return _studio_report(
        options, seconds, result, samples, (idle_before, idle_after), memory_growth
    ), failures


def rest(pid: int, url: str) -> Sample:
    """Delete all sessions, wait, and sample the idle server."""
    delete_sessions(url)
    time.sleep(_REST_S)
    return sample(pid)


def _studio_report(
    options: argparse.Namespace,
    seconds: float,
    result: LoadResult,
    samples: list[Sample],
    rests: tuple[Sample, Sample],
    memory_growth: float,
) -> str:
    count = sum(result.answers.values())
    drops = result.done["drop_upload"] + result.done["drop_download"]
    mib = [taken.rss / 2**20 for taken in samples]
    before, after = rests
    return (
        f"{options.clients} clients for {seconds / 60:.0f} minutes.\n\n"
        "| | |\n|---|---:|\n"
        f"| requests answered | {count:,} |\n"
        f"| wrong or missing answers | {len(result.errors)} |\n"
        f"| connections broken by clients | {drops:,} |\n"
        f"| searches, cancelled searches | {result.done['search'] + result.done['cancel']:,}, "
        f"{result.done['cancel']:,} |\n"
        f"| sessions saved and opened again | {result.done['save']:,} |\n"
        f"| light requests: median, 95 %, maximum | {result.p(0.5):.0f}, {result.p(0.95):.0f}, "
        f"{result.p(1):.0f} ms |\n"
        f"| server memory, MiB: half time, end, maximum | {mib[len(mib) // 2]:.0f}, "
        f"{mib[-1]:.0f}, {max(mib):.0f} |\n"
        f"| linear growth over the second half | {100 * memory_growth:+.1f} % |\n"
        f"| open handles at rest: before, after | {before.handles}, {after.handles} |\n"
        f"| threads at rest: before, after | {before.threads}, {after.threads} |"
    )


def files(options: argparse.Namespace, folder: Path) -> tuple[str, list[str]]:
    """Enhance small files in one process; return a report and the missed requirements."""
    (folder / "in").mkdir()
    chance = np.random.default_rng(options.seed)
    for number in range(options.files):
        take = instrument(float(chance.uniform(0.5, 1.0)), seed=number)
        soundfile.write(folder / "in" / f"{number:05}.wav", take.T, 16_000)
    command = [
        sys.executable, "-m", "tonewood", "enhance", str(folder / "in"), "-m", options.model,
        "-o", str(folder / "out"), "--json",
    ]  # fmt: skip
    log = folder / "log"
    start = time.perf_counter()
    with log.open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        watch = Watch(process.pid, every_s=0.5)
        watch.start()
        code = process.wait()
    seconds = time.perf_counter() - start
    samples = watch.stop()
    done = len(list((folder / "out").glob("*.wav")))
    failures = [] if (code, done) == (0, options.files) else [f"exit code {code}, {done} files done"]
    steady = samples[len(samples) // 10 :]
    memory_growth = growth(steady)
    halves = [steady[: len(steady) // 2], steady[len(steady) // 2 :]]
    handles = [max(taken.handles for taken in half) for half in halves]
    threads = [max(taken.threads for taken in half) for half in halves]
    mib = [taken.rss / 2**20 for taken in steady]
    if memory_growth > GROWTH:
        failures.append(f"memory grew by {100 * memory_growth:.1f} % over the second half")
    if handles[1] > handles[0] or threads[1] > threads[0]:
        failures.append(f"most handles {handles}, most threads {threads} in first and second half")
    return (
        f"{options.files:,} files of 0.5 to 1 s in one process, {seconds:.0f} s.\n\n"
        "| | |\n|---|---:|\n"
        f"| files done, exit code | {done:,}, {code} |\n"
        f"| memory, MiB: after a tenth, half time, end | {mib[0]:.0f}, "
        f"{mib[len(mib) // 2]:.0f}, {mib[-1]:.0f} |\n"
        f"| linear growth over the second half | {100 * memory_growth:+.1f} % |\n"
        f"| maximum open handles: first, second half | {handles[0]}, {handles[1]} |\n"
        f"| maximum threads: first, second half | {threads[0]}, {threads[1]} |"
    ), failures


def _fill(page: Path, what: str, text: str) -> None:
    begin, end = f"<!-- long {what}: begin -->\n", f"<!-- long {what}: end -->"
    content = page.read_text(encoding="utf-8")
    head, tail = content.split(begin)[0], content.split(end)[1]
    page.write_text(head + begin + "\n" + text + "\n\n" + end + tail, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
