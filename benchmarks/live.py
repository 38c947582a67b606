"""Measure the cost of a stream: share of real time on one core by block size, rate and channels.

    python benchmarks/live.py [MODEL] [--seconds 20] [--json]

The sound is synthetic. Every block is pushed and pulled as `tonewood live` does it. The mean says
what is left of the core; the slowest block, over its own duration, says what a driver's buffer
must bridge, which is why the block matters and the mean hardly changes.
"""

import argparse
import json
import os
import platform
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import tonewood

_CASES = [(48_000, 2, block) for block in (64, 128, 256, 480, 1024)]
_CASES += [(48_000, 1, 256), (44_100, 2, 256), (96_000, 2, 256)]


def main() -> None:
    call = parsed()
    torch.set_num_threads(1)
    model = tonewood.load(call.model)
    found = [measured(model, *case, call.seconds) for case in _CASES]
    if call.json:
        print(json.dumps({"machine": platform.processor() or platform.machine(), "rows": found}))
        return
    print("| rate, Hz | channels | block | latency, ms | real time | 99 % of blocks | slowest |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for it in found:
        print(
            f"| {it['rate']:,} | {it['channels']} | {it['block']} | {it['latency_ms']:.1f} | "
            f"{it['real_time']:.3f} | {it['most']:.2f} | {it['slowest']:.2f} |"
        )


def measured(model, rate: int, channels: int, block: int, seconds: float) -> dict:
    """Run one stream; return its processor time, which other programs hardly change."""
    stream = tonewood.Stream(model, rate, channels)
    sound = hum(rate, channels, seconds)
    stream.process(sound[:, : rate // 2])  # what is made once is made now
    spent = []
    began = time.process_time()
    for first in range(rate // 2, sound.shape[1] - block, block):
        start = time.thread_time()
        stream.process(sound[:, first : first + block])
        spent.append(time.thread_time() - start)
    whole = time.process_time() - began
    loads = np.array(spent) * rate / block
    return {
        "rate": rate,
        "channels": channels,
        "block": block,
        "latency_ms": 1000 * stream.latency / rate,
        "real_time": whole / (len(spent) * block / rate),
        "most": float(np.quantile(loads, 0.99)),
        "slowest": float(loads.max()),
    }


def hum(rate: int, channels: int, seconds: float) -> np.ndarray:
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


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="cello")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
