"""Run the VST3 plug-in in a host, and compare its output with `tonewood.Stream`.

    make plugin && python benchmarks/plugin_host.py TAKE … [--host-python PATH]

The host is pedalboard, which is GPL: install it in an environment of its own and name the Python of that
with --host-python. Tonewood neither needs nor imports it. Each case prints the level of the difference
relative to the stream's output.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import tonewood
from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import resample
from tonewood.settings import RenderSettings
from tonewood.utils.arrays import Samples

_PLUGIN = Path(__file__).parents[1] / "plugin" / "build" / "bin" / "tonewood.vst3"
# Runs in the other environment. pedalboard compensates the latency that the plug-in reports.
_HOST = """
import sys, json, numpy, pedalboard
plugin_path, input_path, output_path, rate, block, values = sys.argv[1:]
plugin = pedalboard.load_plugin(plugin_path)
for name, value in json.loads(values).items():
    plugin.parameters[name].raw_value = value  # attributes are rounded to a thousandth of the range
output = plugin(numpy.load(input_path), float(rate), buffer_size=int(block))
numpy.save(output_path, output)
"""
_RATES = (44_100, 48_000, 96_000)
_BLOCKS = (64, 512, 4_096)
_AMOUNTS = (-100, 50, 100, 200)
_START_SECONDS = 1.0  # the host restarts the plug-in with what it has read: the comparison begins after it


def main() -> None:
    options = parse_options()
    takes = [read_recording(path) for path in options.takes]
    print("| rate, Hz | block | amount, % | difference, dB |")
    print("|---:|---:|---:|---:|")
    worst = -np.inf
    for rate in _RATES:
        mix = np.concatenate([resample(take.samples.mean(axis=0), take.rate, rate) for take in takes])
        stereo = np.stack([mix, np.roll(mix, rate // 50)]).astype(np.float32)
        for block, amount in zip(itertools.cycle(_BLOCKS), _AMOUNTS, strict=False):
            difference = compare(options, stereo, rate, block, amount)
            worst = max(worst, difference)
            print(f"| {rate:,} | {block} | {amount} | {difference:.1f} |", flush=True)
    print(f"\nworst: {worst:.1f} dB")


def compare(options: argparse.Namespace, samples: Samples, rate: int, block: int, amount: int) -> float:
    """Return the level of the difference between host and stream in dB, relative to the stream's output."""
    hosted = run_host(options, samples, rate, block, amount)
    stream = tonewood.Stream("cello", rate, len(samples), RenderSettings(amount=amount / 100))
    stream.push(samples)
    expected = np.concatenate([stream.pull(), stream.flush()], axis=1)[:, stream.latency :]
    start, stop = round(_START_SECONDS * rate), min(hosted.shape[1], expected.shape[1])
    difference = (hosted - expected[:, : hosted.shape[1]])[:, start:stop]
    return 10 * float(np.log10(np.square(difference).mean() / np.square(expected[:, start:stop]).mean()))


def run_host(options: argparse.Namespace, samples: Samples, rate: int, block: int, amount: int) -> Samples:
    """Return samples (channels, samples) after the plug-in in the host."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npy", Path(folder) / "out.npy"
        np.save(source, samples)
        values = json.dumps({"amount": (amount + 100) / 300})  # 0 to 1
        command = [options.host_python, "-c", _HOST, str(options.plugin), str(source), str(target)]
        subprocess.run([*command, str(rate), str(block), values], check=True, capture_output=True)
        output: Samples = np.load(target)
    return output


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("takes", nargs="+", type=Path, metavar="TAKE", help="recordings, joined to one")
    parser.add_argument("--plugin", type=Path, default=_PLUGIN, help="the plug-in in VST3")
    parser.add_argument(
        "--host-python", default=sys.executable, help="Python in which pedalboard is installed"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
