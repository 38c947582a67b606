"""Commands and servers are killed (-9) at random moments; what must hold after it is checked.

    python campaigns/crash.py --kills 200 [--seed 0] [--only train] [--kept deaths.jsonl]
    python campaigns/crash.py --steps [--only "enhance, a folder"]
    python campaigns/crash.py --kills 0 --docs    # the table of what is kept, into the docs

Moments are drawn uniformly over the processor time that the command takes undisturbed, its start
and its last write included. With --steps commands are killed before every step that they take on
the disk instead, one after the other. Each death is kept as a line of JSON; the same call goes on
where it was stopped. `make test` runs a share of it (tests/campaigns/test_crash.py).
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `campaigns` and `tests` are found

from campaigns.harness.crash.commands import MODEL, make_inputs, make_test, scenes
from campaigns.harness.crash.runs import (
    Death,
    Nursery,
    killed_at_step,
    killed_in_time,
    steps_of,
    undisturbed,
)
from campaigns.harness.crash.servers import Studio, kill_listening, whole_listening

DOCS = Path(__file__).parents[1] / "docs" / "security.md"
BEGIN, END = "<!-- sudden death: begin -->", "<!-- sudden death: end -->"
SHARES = {
    "enhance, a file": 60, "enhance, a folder": 40, "enhance, --parquet": 15,
    "enhance, --workers 1": 8, "train": 27, "listen new": 20, "listen serve": 30,
    "listen serve, asked": 20, "studio": 12,
}  # fmt: skip

Kill = Callable[[float], Death]


def main() -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", action="store_true", help="kill at every step on the disk")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a command; again for more")
    parser.add_argument("--kept", type=Path, default=Path("deaths.jsonl"))
    parser.add_argument("--docs", action="store_true", help="write the table into the docs")
    asked = parser.parse_args()
    names = asked.only or list(SHARES)
    if asked.steps or asked.kills:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch).resolve()
            (root / "in").mkdir()
            inputs = make_inputs(root / "in")
            if asked.steps:
                step_by_step(names, inputs, root, asked.kept)
            else:
                for name in names:
                    drawn = moments(name, asked.kills, asked.seed)
                    at_random(name, drawn, inputs, root, asked.kept)
    deaths = read(asked.kept)
    told = table(deaths)
    print(told)
    if asked.docs:
        before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        text = f"{before}{BEGIN}\n\n{told}\n\n{END}{after}"
        DOCS.write_text(text, encoding="utf-8")
    return 1 if any(death.wrong for death in deaths) else 0


def moments(name: str, kills: int, seed: int) -> list[float]:
    """When a command is killed, as shares of its time; its part of all kills."""
    count = -(-kills * SHARES[name] // sum(SHARES.values()))
    chance = random.Random(f"{seed} {name}")
    return [chance.random() for _ in range(count)]


def at_random(name: str, drawn: list[float], inputs: Path, root: Path, kept: Path) -> None:
    """Kill a command at some moments, but for those that were kept before."""
    left = drawn[sum(death.scene == name for death in read(kept)) :]
    if not left:
        return
    with Nursery() as nursery:
        kill = prepared(name, inputs, root, nursery)
        for at in left:
            note(kept, kill(at))


def prepared(name: str, inputs: Path, root: Path, nursery: Nursery) -> Kill:
    """How a command is killed."""
    work = root / "work"
    if name.startswith("listen serve"):
        test = make_test(inputs, root / "test")
        start, end = whole_listening(test, work)
        if name == "listen serve":  # most of its time it starts
            return lambda at: kill_listening(test, work, at * (start + (end - start) / 10), at)
        return lambda at: kill_listening(test, work, start + at * (end - start), at, name)
    if name == "studio":
        studio = Studio(inputs / "takes/day0/take0.wav", MODEL)
        seconds = studio.whole(work)
        return lambda at: studio.kill(work, at * seconds, at)
    scene = scenes(inputs)[name]
    whole = undisturbed(scene, work)
    return lambda at: killed_in_time(scene, work, whole, at, nursery)


def step_by_step(names: list[str], inputs: Path, root: Path, kept: Path) -> None:
    """Kill commands before every step on the disk, but for those that were kept before."""
    with Nursery() as nursery:
        for name, scene in scenes(inputs).items():
            if name not in names or "--workers" in name:
                continue
            whole, steps = steps_of(scene, root / "work", nursery)
            name_of_steps = f"{name}, by steps"
            done = sum(death.scene == name_of_steps for death in read(kept))
            for step in range(done + 1, steps + 1):
                death = killed_at_step(scene, root / "work", whole, step, nursery)
                death.scene = name_of_steps
                note(kept, death)


def note(kept: Path, death: Death) -> None:
    """Keep how one ended."""
    with kept.open("a", encoding="utf-8") as file:
        file.write(json.dumps(death.told()) + "\n")
    for line in death.wrong:
        print(f"{death.scene} at {death.at:.3f}: {line}", flush=True)


def read(kept: Path) -> list[Death]:
    """All that were kept."""
    if not kept.exists():
        return []
    lines = kept.read_text(encoding="utf-8").splitlines()
    return [Death(**json.loads(line)) for line in lines]


def table(deaths: list[Death]) -> str:
    """How often each command was killed, when, and what was wrong after it."""
    rows = [
        "  | command | killed | before work | during | after | faults |",
        "  |---|---:|---:|---:|---:|---:|",
    ]
    random_ = [death for death in deaths if "by steps" not in death.scene]
    for name in SHARES:
        if there := [death for death in random_ if death.scene == name]:
            rows.append(row(f"`{name}`", there))
    rows.append(row("all", random_))
    steps = [death for death in deaths if "by steps" in death.scene]
    for name in SHARES:
        if there := [death for death in steps if death.scene == f"{name}, by steps"]:
            wrong = sum(bool(death.wrong) for death in there)
            rows.append(f"  | `{name}`, before every step on the disk | {len(there)} | | | | {wrong} |")
    return "\n".join(rows)


def row(name: str, deaths: list[Death]) -> str:
    """A line of the table."""
    when = [sum(death.when == it for death in deaths) for it in ("before", "in", "after")]
    wrong = sum(bool(death.wrong) for death in deaths)
    return f"  | {name} | {len(deaths)} | {' | '.join(map(str, when))} | {wrong} |"


if __name__ == "__main__":
    sys.exit(main())
