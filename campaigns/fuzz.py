"""Give damaged inputs to everything that reads files, and to the servers' ports.

    python campaigns/fuzz.py --inputs 1000000 [--seed 0] [--only audio] [--keep FOLDER]

Each input must end in success or in one typed error, within ten seconds and a gibibyte, and leave no
file behind. Inputs that do not are written to FOLDER, and the exit code is 1. `make test` runs a short
share (tests/campaigns/test_fuzz.py).
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `campaigns` and `tests` are found

from campaigns.harness.fuzz.all_readers import all_readers
from campaigns.harness.fuzz.runner import FuzzResult, run_inputs
from tonewood.model.model import Model, load_model

_BATCH = 5_000


def main() -> int:
    """Run the campaign; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="number of inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the names of readers")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for findings")
    parser.add_argument("--model", help="model file; a small one is faster")
    options = parser.parse_args()
    start_time, findings = time.perf_counter(), 0
    file = options.model or "soundfont-cello"
    model: Model = load_model(file)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        readers = stack.enter_context(all_readers(model, file, root / "seeds"))
        chosen = {name: reader for name, reader in readers.items() if options.only in name}
        each = -(-options.inputs // len(chosen))
        print("reader               inputs    read  refused  slowest, ms  findings")
        for number, (name, reader) in enumerate(chosen.items()):
            folder = root / f"in{number}"
            folder.mkdir()
            result = FuzzResult()
            for start in range(0, each, _BATCH):
                count = min(_BATCH, each - start)
                part = run_inputs(reader, reader.inputs(count, options.seed + start), folder)
                result.read += part.read
                result.refused += part.refused
                result.slowest_s = max(result.slowest_s, part.slowest_s)
                result.findings += part.findings
            print(
                f"{name:20} {result.total:7,} {result.read:7,}  {result.refused:7,}  "
                f"{1000 * result.slowest_s:11.0f}  {len(result.findings):8}",
                flush=True,
            )
            findings += len(result.findings)
            write_findings(options.keep, name, reader.suffix, result)
    print(f"{time.perf_counter() - start_time:.0f} s, {findings} findings")
    return 1 if findings else 0


def write_findings(folder: Path, name: str, suffix: str, result: FuzzResult) -> None:
    """Write findings with different outcomes, and a description of each."""
    by_outcome: dict[str, tuple[bytes, str]] = {}
    for content, outcome in result.findings:
        by_outcome.setdefault(outcome.splitlines()[-1][:80], (content, outcome))
    for content, outcome in by_outcome.values():
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(content).hexdigest()[:12]
        (folder / f"{digest}{suffix}").write_bytes(content)
        (folder / f"{digest}.json").write_text(json.dumps({"reader": name, "ended": outcome}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
