"""Measure the cost of the plug-in's engine: share of one core, and the slowest block.

    make -C plugin engine && python benchmarks/plugin.py [--seconds 20] [--repeat 5] [--json]

The times are processor time of the audio thread, so other processes change them little. Blocks have 512
samples; the slowest block is relative to its duration. Each figure is the median of the repetitions,
with the smallest and the largest.
"""

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import tonewood
from tonewood.export.plugin_file import export_plugin_file

_PROGRAM = Path(__file__).parents[1] / "plugin" / "build" / "offline"
_CASES = [(rate, channels, 0) for rate in (44_100, 48_000, 96_000, 192_000) for channels in (1, 2)]
_CASES.append((48_000, 2, 1))


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder:
        model = export_plugin_file(tonewood.load("cello"), Path(folder) / "cello.twp").output
        rows = [measure(options, model, *case) for case in _CASES]
    if options.json:
        print(json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}))
        return
    print("| rate, Hz | channels | masks | share of a core, % | slowest block, % |")
    print("|---:|---:|---|---:|---:|")
    for row in rows:
        print(
            f"| {row['rate']:,} | {row['channels']} | {'mid/side' if row['mid_side'] else 'linked'} | "
            f"{format_spread(row['share'])} | {format_spread(row['worst_share'])} |"
        )


def measure(
    options: argparse.Namespace, model: Path, rate: int, channels: int, mid_side: int
) -> dict[str, Any]:
    """Return the median, smallest and largest share of `options.repeat` runs."""
    samples = 0.1 * np.random.default_rng(0).standard_normal((options.seconds * rate, channels))
    blocks = model.with_suffix(".blocks")
    blocks.write_text(f"512 1 0 0 0 {mid_side}\n")
    command = [str(_PROGRAM), str(rate), str(channels), str(blocks), str(model)]
    reports = []
    for _ in range(options.repeat):
        ended = subprocess.run(
            command, input=samples.astype("<f4").tobytes(), capture_output=True, check=True
        )
        reports.append(json.loads(ended.stderr))
    row: dict[str, Any] = {"rate": rate, "channels": channels, "mid_side": bool(mid_side)}
    for name in ("share", "worst_share"):
        values = [report[name] for report in reports]
        row[name] = (statistics.median(values), min(values), max(values))
    return row


def format_spread(shares: tuple[float, float, float]) -> str:
    middle, low, high = (100 * share for share in shares)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=20, help="duration of the sound")
    parser.add_argument("--repeat", type=int, default=5, help="number of runs of each case")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
