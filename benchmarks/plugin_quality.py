"""Compare the plug-in with the command line: share of the distance to the reference that each closes.

    make -C plugin engine && python benchmarks/plugin_quality.py CORPUS=MODEL … [--seconds 60]

The test pieces of a corpus are joined to one take, which goes through the plug-in's engine in blocks of 512
samples, through the predicted mask of `enhance --method predicted`, and through the full search. The distance
is that of `quality.py`, the mel log-spectral distance to the paired takes.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from quality.corpus import Piece, mono, paired

import tonewood
from tonewood.evaluation.metrics import gap_closed, measure_distances
from tonewood.export.plugin_file import export_plugin_file
from tonewood.model.model import Model
from tonewood.utils.arrays import Samples

_PROGRAM = Path(__file__).parents[1] / "plugin" / "build" / "offline"


def main() -> None:
    options = parse_options()
    print("| corpus | seconds | plug-in | predicted mask | full search |")
    print("|---|---:|---:|---:|---:|")
    for corpus in options.corpora:
        folder, _, model_name = corpus.partition("=")
        print_row(Path(folder), tonewood.load(model_name or "cello"), options.seconds)


def print_row(folder: Path, model: Model, seconds: float) -> None:
    """Print the shares of one corpus."""
    pieces = pieces_of(paired(folder / "test"), seconds)
    rate = pieces[0].rate
    take = np.concatenate([piece.samples for piece in pieces], axis=1)
    before, target = (
        np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("before", "target")
    )
    distance = measure_distances(before, target).mel
    methods: list[Callable[[], Samples]] = [
        lambda: run_engine(take, rate, model),
        lambda: tonewood.enhance(take, rate, model, method="predicted").samples,
        lambda: tonewood.enhance(take, rate, model).samples,
    ]
    shares = []
    for method in methods:
        wave = mono(method(), rate)[: len(target)]
        wave = np.pad(wave, (0, len(target) - len(wave)))
        shares.append(100 * gap_closed(distance, measure_distances(wave, target).mel))
    cells = " | ".join(f"{share:.1f} %" for share in shares)
    print(f"| {folder.resolve().name} | {take.shape[1] / rate:.0f} | {cells} |", flush=True)


def pieces_of(pieces: list[Piece], seconds: float) -> list[Piece]:
    """Return the first pieces of one rate that last about some seconds together."""
    chosen: list[Piece] = []
    for piece in pieces:
        if sum(each.samples.shape[1] for each in chosen) < seconds * piece.rate:
            chosen.append(piece)
    assert len({piece.rate for piece in chosen}) == 1
    return chosen


def run_engine(take: Samples, rate: int, model: Model) -> Samples:
    """Return a take (channels, samples) after the plug-in, without its delay."""
    with tempfile.TemporaryDirectory() as folder:
        file = export_plugin_file(model, Path(folder) / "model.twp").output
        blocks = Path(folder) / "blocks"
        blocks.write_text("512\n")
        command = [str(_PROGRAM), str(rate), str(len(take)), str(blocks), str(file)]
        padded = np.pad(take, ((0, 0), (0, rate)))
        data = np.ascontiguousarray(padded.T, "<f4").tobytes()
        ended = subprocess.run(command, input=data, capture_output=True, check=True)
    latency = json.loads(ended.stderr)["latency"]
    output = np.frombuffer(ended.stdout, "<f4").reshape(-1, len(take)).T
    return output[:, latency : latency + take.shape[1]]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "corpora", nargs="+", metavar="CORPUS=MODEL", help="folder, and a bundled model or a file"
    )
    parser.add_argument("--seconds", type=float, default=60, help="duration of the take")
    return parser.parse_args()


if __name__ == "__main__":
    main()
