"""Measure how far Tonewood and alternatives move recordings towards the reference.

    python benchmarks/quality.py CORPUS… [--seeds 0 1 2] [--rows tonewood* static] [-o OUT]

A corpus is a folder laid out as train|val|test/{good,cheap}: training takes need not correspond,
pieces of val and test are pairs by name. One table for each corpus, one row for each method.
"""

import argparse
import datetime
import fnmatch
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from quality import bounds, corpus, measure, ours, outside, report
from quality.bench import Bench
from quality.cyclegan import CYCLEGAN
from quality.matchering import MATCHERING
from quality.supervised import SUPERVISED

ROWS = [
    bounds.UNTOUCHED,
    *ours.PRIOR_ROWS,
    MATCHERING,
    *ours.PAPER_ROWS,
    CYCLEGAN,
    ours.TONEWOOD,
    *ours.PREDICTED_ROWS,
    *ours.ABLATION_ROWS,
    SUPERVISED,
    bounds.BEST_MASK,
    bounds.REFERENCE,
]

QUICK_PIECES, QUICK_SECONDS = 4, 240.0


def main() -> None:
    options = parse_options()
    torch.set_num_threads(1)
    rows = [r for r in ROWS if any(fnmatch.fnmatch(r.name, pattern) for pattern in options.rows)]
    if options.list or not rows:
        print("\n".join(f"{r.name:24} {r.title}" for r in (rows or ROWS)))
        sys.exit(0 if options.list else f"no row is called {' '.join(options.rows)}; there are these")
    if options.docs:
        outputs = options.docs.with_suffix(".json"), options.docs, options.docs.parent / "images"
    else:
        outputs = options.output / "quality.json", options.output / "quality.md", options.output
    for folder in options.corpus:
        limits = {"pieces": QUICK_PIECES, "seconds": QUICK_SECONDS} if options.quick else {}
        with corpus.opened(folder, **limits) as opened:
            for result in measure_rows(opened, rows, options):
                report.save({result["corpus"]: result}, *outputs)  # long runs do break off
        print(report.text(result), end="\n\n", flush=True)


def measure_rows(opened: corpus.Corpus, rows: list, options: argparse.Namespace) -> Iterator[dict]:
    """Yield all rows so far, and the settings of the run, after each seed."""
    results = {row.name: {"title": row.title, "seeds": []} for row in rows}
    accuracy = {}
    for seed in options.seeds:
        bench = Bench(opened, seed, options.set, options.quick, options.models)
        judge = outside.train(bench)
        card = bench.trained().model.card
        accuracy[str(seed)] = {"scorer": card.scorer.accuracy, "outside": judge.accuracy}
        for row in rows:
            start_time = time.process_time()
            run = measure.run(bench, row, judge)
            if "skipped" in run:
                results[row.name] = {"title": row.title, **run}
            else:
                results[row.name]["seeds"].append(run)
            closed = f"{run['closed']:6.1f} %" if "closed" in run else "skipped"
            seconds = time.process_time() - start_time
            print(f"seed {seed}  {row.title:40} {closed}  ({seconds:.0f} s)", file=sys.stderr)
        yield {
            "corpus": opened.name,
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "quick": options.quick,
            "set": options.set,
            "seeds": options.seeds[: len(accuracy)],
            "pieces": len(opened.test),
            "accuracy": accuracy,
            "rows": results,
        }


def machine() -> dict:
    info = Path("/proc/cpuinfo")
    names = [s for s in info.read_text().splitlines() if "model name" in s] if info.exists() else []
    revision = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "tonewood": f"{version('tonewood')} ({revision or 'no git'})",
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="*", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=None, help="default 0 1 2")
    parser.add_argument("--rows", nargs="+", default=["*"], help="names or patterns; see --list")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument(
        "--set", action="append", default=[], metavar="GROUP.NAME=VALUE", help="steps of every training"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("build/quality"))
    parser.add_argument("--models", type=Path, help="folder of trained models: load those there, keep others")
    parser.add_argument("--docs", type=Path, help="page to fill")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="1 seed, 4 pieces, 4 minutes and a quarter of the steps to train",
    )
    call = parser.parse_args()
    call.seeds = call.seeds or ([0] if call.quick else [0, 1, 2])
    if not call.corpus and not call.list:
        parser.error("give the folder of a corpus")
    return call


if __name__ == "__main__":
    main()
