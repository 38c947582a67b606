"""Kill commands and servers (-9) at random moments, and check files, answers and a second run.

    python campaigns/crash.py --kills 200 [--seed 0] [--only train] [--output kills.jsonl]
    python campaigns/crash.py --steps [--only "enhance, a folder"]
    python campaigns/crash.py --kills 0 --docs    # write the table into the docs

Moments are drawn uniformly over the processor time of an undisturbed run, including its start and its
last write. With --steps, commands are killed before each of their steps on the disk instead. Each kill
is appended to the output as a line of JSON; the same command continues where it was stopped.
`make test` runs a short share (tests/campaigns/test_crash.py).
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `campaigns` and `tests` are found

from campaigns.harness.crash.commands import MODEL, all_commands, make_inputs, make_test
from campaigns.harness.crash.runs import (
    ForkServer,
    KillResult,
    count_steps,
    kill_after_share,
    kill_at_step,
    run_undisturbed,
)
from campaigns.harness.crash.servers import Studio, kill_listening, run_listening

DOCS = Path(__file__).parents[1] / "docs" / "security.md"
BEGIN, END = "<!-- crash: begin -->", "<!-- crash: end -->"
SHARES = {
    "enhance, a file": 60, "enhance, a folder": 40, "enhance, --parquet": 15,
    "enhance, --workers 1": 8, "train": 27, "listen new": 20, "listen serve": 30,
    "listen serve, under load": 20, "studio": 12,
}  # fmt: skip

Kill = Callable[[float], KillResult]


def main() -> int:
    """Run the campaign; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200, help="number of kills")
    parser.add_argument("--steps", action="store_true", help="kill at every step on the disk")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="name of a command; may be repeated")
    parser.add_argument("--output", type=Path, default=Path("kills.jsonl"), help="file of results")
    parser.add_argument("--docs", action="store_true", help="write the table into the docs")
    options = parser.parse_args()
    names = options.only or list(SHARES)
    if options.steps or options.kills:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch).resolve()
            (root / "in").mkdir()
            inputs = make_inputs(root / "in")
            if options.steps:
                step_by_step(names, inputs, root, options.output)
            else:
                for name in names:
                    drawn = moments(name, options.kills, options.seed)
                    at_random(name, drawn, inputs, root, options.output)
    results = read_results(options.output)
    markdown = table(results)
    print(markdown)
    if options.docs:
        before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        text = f"{before}{BEGIN}\n\n{markdown}\n\n{END}{after}"
        DOCS.write_text(text, encoding="utf-8")
    return 1 if any(result.errors for result in results) else 0


def moments(name: str, kills: int, seed: int) -> list[float]:
    """Draw the moments of a command's share of all kills, as shares of its processor time."""
    count = -(-kills * SHARES[name] // sum(SHARES.values()))
    chance = random.Random(f"{seed} {name}")
    return [chance.random() for _ in range(count)]


def at_random(name: str, drawn: list[float], inputs: Path, root: Path, output: Path) -> None:
    """Kill a command at the given moments, without those of earlier results."""
    left = drawn[sum(result.command == name for result in read_results(output)) :]
    if not left:
        return
    with ForkServer() as fork_server:
        kill = kill_function(name, inputs, root, fork_server)
        for at in left:
            append_result(output, kill(at))


def kill_function(name: str, inputs: Path, root: Path, fork_server: ForkServer) -> Kill:
    """Return the function that kills a command at a share of its processor time."""
    work = root / "work"
    if name.startswith("listen serve"):
        test = make_test(inputs, root / f"test for {name}")  # each starts from a test without answers
        start, end = run_listening(test, work)
        if name == "listen serve":  # the start takes most of its time
            return lambda at: kill_listening(test, work, at * (start + (end - start) / 10), at)
        return lambda at: kill_listening(test, work, start + at * (end - start), at, name)
    if name == "studio":
        studio = Studio(inputs / "takes/day0/take0.wav", MODEL)
        seconds = studio.run_undisturbed(work)
        return lambda at: studio.kill(work, at * seconds, at)
    command = all_commands(inputs)[name]
    whole = run_undisturbed(command, work)
    return lambda at: kill_after_share(command, work, whole, at, fork_server)


def step_by_step(names: list[str], inputs: Path, root: Path, output: Path) -> None:
    """Kill commands before every step on the disk, without those of earlier results."""
    with ForkServer() as fork_server:
        for name, command in all_commands(inputs).items():
            if name not in names or "--workers" in name:
                continue
            whole, steps = count_steps(command, root / "work", fork_server)
            name_of_steps = f"{name}, by steps"
            finished = sum(result.command == name_of_steps for result in read_results(output))
            for step in range(finished + 1, steps + 1):
                result = kill_at_step(command, root / "work", whole, step, fork_server)
                result.command = name_of_steps
                append_result(output, result)


def append_result(output: Path, result: KillResult) -> None:
    """Append a result and print its errors."""
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result.as_dict()) + "\n")
    for line in result.errors:
        print(f"{result.command} at {result.at:.3f}: {line}", flush=True)


def read_results(output: Path) -> list[KillResult]:
    """Read all results."""
    if not output.exists():
        return []
    lines = output.read_text(encoding="utf-8").splitlines()
    return [KillResult(**json.loads(line)) for line in lines]


def table(results: list[KillResult]) -> str:
    """Return a table of kills and errors by command."""
    rows = [
        "  | command | killed | before work | during | after | faults |",
        "  |---|---:|---:|---:|---:|---:|",
    ]
    at_random_moments = [result for result in results if "by steps" not in result.command]
    for name in SHARES:
        if matching := [result for result in at_random_moments if result.command == name]:
            rows.append(row(f"`{name}`", matching))
    rows.append(row("all", at_random_moments))
    steps = [result for result in results if "by steps" in result.command]
    for name in SHARES:
        if matching := [result for result in steps if result.command == f"{name}, by steps"]:
            errors = sum(bool(result.errors) for result in matching)
            rows.append(f"  | `{name}`, before every step on the disk | {len(matching)} | | | | {errors} |")
    return "\n".join(rows)


def row(name: str, results: list[KillResult]) -> str:
    """Return a row of the table."""
    when = [sum(result.when == moment for result in results) for moment in ("before", "in", "after")]
    errors = sum(bool(result.errors) for result in results)
    return f"  | {name} | {len(results)} | {' | '.join(map(str, when))} | {errors} |"


if __name__ == "__main__":
    sys.exit(main())
