"""Measure the cost of a stream: share of real time on one core by block size, rate and channels.

    python benchmarks/live.py [MODEL] [--seconds 20] [--json]

The sound is synthetic, and processed block by block as `tonewood live` does. The mean is the load of a
core. The slowest block, relative to its duration, is what the buffer of a driver must bridge.
"""

import argparse
import json
import os
import platform
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import tonewood

_CASES = [(48_000, 2, block) for block in (64, 128, 256, 480, 1024)]
_CASES += [(48_000, 1, 256), (44_100, 2, 256), (96_000, 2, 256)]


def main() -> None:
    options = parse_options()
    model = tonewood.load(options.model)
    rows = [measure_stream(model, *case, options.seconds) for case in _CASES]
    if options.json:
        print(json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}))
        return
    print("| rate, Hz | channels | block | latency, ms | real time | 99 % of blocks | slowest |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['rate']:,} | {row['channels']} | {row['block']} | {row['latency_ms']:.1f} | "
            f"{row['real_time']:.3f} | {row['most']:.2f} | {row['slowest']:.2f} |"
        )


def measure_stream(model, rate: int, channels: int, block: int, seconds: float) -> dict:
    """Run one stream; return its processor time, which other programs hardly change."""
    stream = tonewood.Stream(model, rate, channels)
    sound = synthesize_tones(rate, channels, seconds)
    stream.process(sound[:, : rate // 2])  # what is made once is made now
    block_seconds = []
    start_time = time.process_time()
    for position in range(rate // 2, sound.shape[1] - block, block):
        block_start = time.thread_time()
        stream.process(sound[:, position : position + block])
        block_seconds.append(time.thread_time() - block_start)
    total_seconds = time.process_time() - start_time
    loads = np.array(block_seconds) * rate / block
    return {
        "rate": rate,
        "channels": channels,
        "block": block,
        "latency_ms": 1000 * stream.latency / rate,
        "real_time": total_seconds / (len(block_seconds) * block / rate),
        "most": float(np.quantile(loads, 0.99)),
        "slowest": float(loads.max()),
    }


def synthesize_tones(rate: int, channels: int, seconds: float) -> np.ndarray:
    """Synthesise harmonic tones that change four times a second, (channels, samples)."""
    rng = np.random.default_rng(0)
    pieces = []
    time_s = np.arange(rate // 4) / rate
    for _ in range(round(4 * seconds)):
        hz = 65.4 * 2 ** (rng.integers(0, 24) / 12) * np.arange(1, 40)[:, None]
        partials = np.sin(2 * np.pi * hz * time_s) / np.arange(1, 40)[:, None]
        pieces.append(np.hanning(len(time_s)) * partials.sum(axis=0))
    wave = 0.1 * np.concatenate(pieces) + 1e-4 * rng.standard_normal(len(pieces) * len(time_s))
    return np.tile(wave, (channels, 1)).astype(np.float32)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="cello")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
