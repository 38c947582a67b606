"""Test whether the table of `tonewood explain` finds a known cause.

    python benchmarks/planted.py [--causes vibrato attack resonance] [--seeds 0] [-o OUT]

Two synthetic instruments differ in vibrato only, in the bow's attack only, or in one resonance only. A
model is trained on them, and explained on phrases that are not in its training data.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from planted.instrument import CAUSES
from planted.measure import find, learn, settings, write_takes

from tonewood.explanation.report import octaves_table, parts_table

TRAIN, TEST, SECONDS = range(72), range(150, 162), 9.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--causes", nargs="+", choices=list(CAUSES), default=list(CAUSES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", default=["cam", "integrated"])
    parser.add_argument("-o", "--output", type=Path, default=Path("build/planted"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for cause in options.causes:
        with tempfile.TemporaryDirectory() as folder:
            write_takes(Path(folder) / cause, cause, TRAIN, SECONDS)
            for seed in options.seeds:
                start_time = time.perf_counter()
                model = learn(Path(folder) / cause, settings(seed))
                model.save(options.output / f"{cause}-{seed}.tonewood", overwrite=True)
                report = []
                for finding in find(model, cause, TEST, SECONDS, options.methods):
                    report.append(to_json(asdict(finding)))
                    print(
                        f"\n{cause}, seed {seed}, {finding.side}, {finding.method}: "
                        f"{finding.ratio:.1f} times the rest; held-out accuracy "
                        f"{100 * finding.accuracy:.1f} %"
                    )
                    for table in (parts_table(finding.parts), octaves_table(finding.octaves)):
                        for name, *figures in table:
                            print(f"  {name:<12}" + "".join(f"{figure:>24}" for figure in figures))
                print(f"{time.perf_counter() - start_time:.0f} s", flush=True)
                path = options.output / f"{cause}-{seed}.json"
                path.write_text(json.dumps(report, indent=1) + "\n")


def to_json(value: object) -> object:
    """Return the fields for JSON, without infinities."""
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value) if isinstance(value, float) and value - value != 0 else value


if __name__ == "__main__":
    main()
