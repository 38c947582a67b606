"""Damaged inputs by the million to everything that reads files, and to the servers' ports.

    python campaigns/fuzz.py --inputs 1000000 [--seed 0] [--only audio] [--keep FOLDER]

Each must end in success or in one typed error, within ten seconds and a gibibyte, and leave no
file behind. What does not is kept in FOLDER, as the bytes that it took, and named; the exit code
is 1 then. `make test` runs a share of it (tests/campaigns/test_fuzz.py).
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

from campaigns.harness.fuzz.all_readers import everything
from campaigns.harness.fuzz.runner import Tally, tried
from tonewood.model.model import Model, load_model

_AT_ONCE = 5_000


def main() -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose names hold this")
    parser.add_argument("--keep", type=Path, default=Path("hostile"))
    parser.add_argument("--model", help="model file; small ones are damaged faster")
    asked = parser.parse_args()
    began, found = time.perf_counter(), 0
    file = asked.model or "soundfont-cello"
    model: Model = load_model(file)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        readers = stack.enter_context(everything(model, file, root / "seeds"))
        chosen = {name: it for name, it in readers.items() if asked.only in name}
        each = -(-asked.inputs // len(chosen))
        print("reader               inputs    read  refused  slowest, ms  findings")
        for number, (name, reader) in enumerate(chosen.items()):
            folder = root / f"in{number}"
            folder.mkdir()
            tally = Tally()
            for start in range(0, each, _AT_ONCE):
                count = min(_AT_ONCE, each - start)
                part = tried(reader, reader.inputs(count, asked.seed + start), folder)
                tally.read += part.read
                tally.refused += part.refused
                tally.slowest_s = max(tally.slowest_s, part.slowest_s)
                tally.findings += part.findings
            print(
                f"{name:20} {tally.total:7,} {tally.read:7,}  {tally.refused:7,}  "
                f"{1000 * tally.slowest_s:11.0f}  {len(tally.findings):8}",
                flush=True,
            )
            found += len(tally.findings)
            keep(asked.keep, name, reader.suffix, tally)
    print(f"{time.perf_counter() - began:.0f} s, {found} findings")
    return 1 if found else 0


def keep(folder: Path, name: str, suffix: str, tally: Tally) -> None:
    """Write findings that differ in how they end, and how."""
    ends: dict[str, tuple[bytes, str]] = {}
    for content, how in tally.findings:
        ends.setdefault(how.splitlines()[-1][:80], (content, how))
    for content, how in ends.values():
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(content).hexdigest()[:12]
        (folder / f"{digest}{suffix}").write_bytes(content)
        (folder / f"{digest}.json").write_text(json.dumps({"reader": name, "ended": how}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
