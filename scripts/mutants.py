"""Break the code on purpose, a little at a time, and see whether a test notices.

    python scripts/mutants.py map -o mutants/                 # which test runs which line
    python scripts/mutants.py run -o mutants/ --sample 420    # break, test, tell
    python scripts/mutants.py run -o mutants/ --again         # only what survived
    python scripts/mutants.py tell -o mutants/                # into docs/testing.md

Needs `pip install '.[release]'`. mutmut makes the mutants of `signal`, `masking` and `scoring`; a
seeded sample of them is drawn, as many from each chapter. Each is written into a copy of the
repository and given to the tests that run its lines, the chapter's own first and fast ones before
slow ones, until one fails or `--seconds` of them have passed; so what survives is an upper bound.
Writes mutants/results.json as it goes; `tell` puts it into docs/testing.md.
"""

import argparse
import ast
import difflib
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import cache_from_source
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CHAPTERS = ("signal", "masking", "scoring")
PRELOADED = [
    *("pydantic", "platformdirs", "pyloudnorm", "pytest", "rich.console", "safetensors.torch"),
    *("scipy.signal", "scipy.stats", "soundfile", "soxr", "torch", "typer"),
]
"""What nearly every test imports: imported once, in the process that the tests are forked from."""


BEGIN, END = "<!-- mutants: begin -->", "<!-- mutants: end -->"
KILLED = ("killed", "timed out")


class Mutant(NamedTuple):
    """One change to one file."""

    file: str
    line: int
    last: int  # of the lines that it changes
    number: int  # among the file's mutants
    change: str
    source: str


def drawn(count: int, seed: int) -> list[Mutant]:
    """Draw as many mutants from each chapter, of all that mutmut makes."""
    from mutmut.mutation.file_mutation import create_mutations

    dice = random.Random(seed)
    found = []
    for chapter in CHAPTERS:
        every = []
        for path in sorted((ROOT / "src" / "tonewood" / chapter).glob("*.py")):
            name, code = str(path.relative_to(ROOT)), path.read_text("utf-8")
            module, made, *_ = create_mutations(name, code)
            every += [(name, code, module, number, it) for number, it in enumerate(made)]
        for name, code, module, number, it in dice.sample(every, count // len(CHAPTERS)):
            changed = module.deep_replace(it.original_node, it.mutated_node)
            found.append(mutant(name, number, code, module.code_for_node(changed)))
    dice.shuffle(found)
    return found


def sample(folder: Path, count: int, seed: int) -> list[Mutant]:
    """Draw, or take what was drawn before of the same code: to make all mutants takes minutes."""
    code = hashlib.sha256()
    for chapter in CHAPTERS:
        for path in sorted((ROOT / "src" / "tonewood" / chapter).glob("*.py")):
            code.update(path.read_bytes())
    kept = folder / f"sample-{count}-{seed}-{code.hexdigest()[:12]}.json"
    if not kept.exists():
        kept.write_text(json.dumps(drawn(count, seed)), "utf-8")
    return [Mutant(*it) for it in json.loads(kept.read_text("utf-8"))]


def mutant(file: str, number: int, code: str, source: str) -> Mutant:
    """Say in which lines a mutant differs."""
    old, new = code.splitlines(), source.splitlines()
    parts = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    first, last = next((a, b) for tag, a, b, *_ in parts if tag != "equal")
    change = "\n".join(list(difflib.unified_diff(old, new, n=0, lineterm=""))[3:])
    return Mutant(file, first + 1, max(first + 1, last), number, change, source)


def statement(source: str, first: int, last: int) -> range:
    """Return the lines of the smallest statement around some; of a compound one, its head."""
    spans = [
        (node.lineno, node.body[0].lineno - 1 if hasattr(node, "body") else node.end_lineno)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt)
    ]
    around = [range(a, b + 1) for a, b in spans if b and a <= first and last <= b]
    return min(around, key=len, default=range(first, last + 1))


class Verdict(NamedTuple):
    """What became of a mutant, and the test that noticed."""

    became: str
    by: str


class Cover:
    """Which tests run a line, and how long each takes."""

    def __init__(self, folder: Path) -> None:
        from coverage import CoverageData

        self.seconds: dict[str, float] = {}
        for path in folder.glob("covering-*.jsonl"):
            for line in path.read_text("utf-8").splitlines():
                told = json.loads(line)
                self.seconds[told["test"]] = told["seconds"]
        data = CoverageData(str(folder / ".coverage"))
        data.read()
        self.lines: dict[str, dict[int, list[str]]] = {}
        for name in data.measured_files():
            _, inside, path_inside = name.partition("/src/tonewood/")
            if inside:
                self.lines[f"src/tonewood/{path_inside}"] = data.contexts_by_lineno(name)

    def tests(self, it: Mutant, seconds: float) -> list[str]:
        """Return the tests for a mutant, in order, while their time lasts."""
        lines = self.lines.get(it.file, {})
        source = (ROOT / it.file).read_text("utf-8")
        found = {t for n in statement(source, it.line, it.last) for t in lines.get(n, ()) if t}
        if not found:  # what runs at import is run by all that use the file
            found = {test for tests in lines.values() for test in tests if test}
        chapter, stem = Path(it.file).parent.name, Path(it.file).stem
        ordered = sorted(
            found & self.seconds.keys(),
            key=lambda test: (
                f"test_{stem}." not in test,
                f"/{chapter}/" not in test,
                self.seconds[test],
            ),
        )
        kept: list[str] = []
        for test in ordered:
            seconds -= self.seconds[test] + 0.02
            if kept and seconds < 0:
                break
            kept.append(test)
        return kept


def test(tree: str, tests: list[str], log: str) -> None:
    """Run tests in a copy of the repository, in a process of its own group."""
    os.setsid()
    os.chdir(tree)
    with Path(log).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["PYTHONPATH"] = f"{tree}/src"
    sys.path.insert(0, f"{tree}/src")
    import pytest

    os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])))


def swap(place: Path, source: str) -> None:
    """Write a module's source, and drop its bytecode, which is told apart by the second only."""
    place.write_text(source, "utf-8")
    Path(cache_from_source(str(place))).unlink(missing_ok=True)


def judge(it: Mutant, tree: Path, tests: list[str], limit: float) -> Verdict:
    """Put a mutant into a copy, test it, take it out; return what became of it."""
    if not tests:
        return Verdict("run by no test", "")
    place, log = tree / it.file, tree.with_suffix(".log")
    kept = place.read_text("utf-8")
    context = multiprocessing.get_context("forkserver")
    swap(place, it.source)
    try:
        worker: ForkServerProcess = context.Process(target=test, args=(str(tree), tests, str(log)))
        worker.start()
        worker.join(limit)
        if worker.exitcode is None:
            assert worker.pid is not None
            os.killpg(worker.pid, signal.SIGKILL)
            worker.join()
            return Verdict("timed out", "")
    finally:
        swap(place, kept)
    said = log.read_text("utf-8", errors="replace")
    # Of pytest's codes 3 is its own mistake; 4, with tests that exist, a file that cannot be read.
    assert worker.exitcode != 3, said
    failed = re.search(r"^(?:FAILED|ERROR) (.*)$", said, re.MULTILINE)
    by = failed[1] if failed else said[-200:]
    return Verdict("killed", by) if worker.exitcode else Verdict("survived", "")


def interval(killed: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, share = 1.96, killed / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5
    return middle - half, middle + half


def copied(place: Path) -> Path:
    """Copy what tests need, committed or not."""
    shutil.rmtree(place, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode("utf-8").splitlines():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)
    return place


def campaign(options: argparse.Namespace) -> list[dict[str, object]]:
    """Judge a sample, or again what survived; what became of each is kept as it is found."""
    path = options.output / "results.json"
    before = json.loads(path.read_text("utf-8")) if path.exists() else []
    done = {(it["file"], it["number"]): it for it in before}
    cover = Cover(options.output)
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    trees: Queue[Path] = Queue()
    for number in range(options.jobs):
        trees.put(copied(options.output / f"tree{number}"))

    chosen = [
        it
        for it in sample(options.output, options.sample, options.seed)
        if Path(it.file).parent.name in options.chapters
    ]
    for it in chosen[:3]:
        whole = it._replace(source=(ROOT / it.file).read_text("utf-8"))
        found = judge(whole, trees.queue[0], cover.tests(it, options.seconds), 600)
        if found.became not in ("survived", "run by no test"):
            sys.exit(f"{it.file} as it is: {found.became}, {found.by}")

    def one(it: Mutant) -> None:
        tests = cover.tests(it, options.seconds)
        tree = trees.get()
        started = time.perf_counter()
        found = judge(it, tree, tests, 60 + 20 * sum(cover.seconds[name] for name in tests))
        trees.put(tree)
        done[it.file, it.number] = {
            **{"file": it.file, "line": it.line, "number": it.number, "change": it.change},
            **{**found._asdict(), "tests": len(tests)},
        }
        path.write_text(json.dumps(list(done.values()), indent=1), "utf-8")
        print(
            f"{found.became}, {time.perf_counter() - started:.1f} s: {it.file}:{it.line}",
            flush=True,
        )

    waiting = [
        it
        for it in chosen
        for old in [done.get((it.file, it.number))]
        if old is None or (options.again and old["became"] not in KILLED)
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, waiting))
    return list(done.values())


def told(results: list[dict[str, object]]) -> str:
    """Return shares by chapter and what survived, as Markdown."""
    by_chapter: dict[str, list[bool]] = {it: [] for it in CHAPTERS}
    for it in results:
        by_chapter[str(it["file"]).split("/")[2]].append(it["became"] in KILLED)
    by_chapter["all"] = [it for killed in by_chapter.values() for it in killed]
    lines = ["| chapter | mutants | killed | share | 95 % interval |", "|---|---:|---:|---:|---:|"]
    for chapter, killed in by_chapter.items():
        if killed:
            low, high = interval(sum(killed), len(killed))
            share = sum(killed) / len(killed)
            lines.append(
                f"| {chapter} | {len(killed)} | {sum(killed)} | {share:.0%} | {low:.0%} to {high:.0%} |"
            )
    left = sorted(
        (str(it["file"]).removeprefix("src/tonewood/"), int(str(it["line"])), str(it["became"]),
         str(it["change"]))
        for it in results
        if it["became"] not in KILLED
    )  # fmt: skip
    lines += ["", "```diff"]
    for file, line, became, change in left:
        lines += [f"@@ {file}:{line}, {became}", change]
    return "\n".join([*lines, "```"])


def tell(folder: Path, page: Path) -> None:
    """Put what was found between the marks of a page."""
    results = json.loads((folder / "results.json").read_text("utf-8"))
    head, rest = page.read_text("utf-8").split(BEGIN)
    _, tail = rest.split(END)
    page.write_text(f"{head}{BEGIN}\n{told(results)}\n{END}{tail}", "utf-8")


def mapped(folder: Path, tests: list[str]) -> None:
    """Run tests under coverage, and note which of them runs which line."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "scripts")])
    environment = {
        **os.environ,
        **{"COVERING": str(folder), "COVERAGE_FILE": str(folder / ".coverage"), "PYTHONPATH": path},
    }
    call = (sys.executable, "-m", "coverage")
    for step in (
        ("run", "-m", "pytest", "-q", "-p", "covering", "-p", "no:cacheprovider", *tests),
        ("combine", "--quiet"),
    ):
        if subprocess.run([*call, *step], cwd=ROOT, env=environment, check=False).returncode:
            sys.exit("the tests must pass before the code is broken")


def main() -> None:
    """Map, or break and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("step", choices=["map", "run", "tell"])
    parser.add_argument("tests", nargs="*", help="of the map; the chapters' own unless given")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "mutants")
    parser.add_argument("--sample", type=int, default=420)
    parser.add_argument("--chapters", nargs="+", default=CHAPTERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30, help="of tests, for a mutant")
    parser.add_argument("--again", action="store_true", help="judge again what survived")
    options = parser.parse_args()
    options.output = options.output.resolve()
    if options.step == "tell":
        tell(options.output, ROOT / "docs" / "testing.md")
    elif options.step == "map":
        own = [f"{place}/{it}" for it in CHAPTERS for place in ("tests", "src/tonewood")]
        mapped(options.output, options.tests or own)
    else:
        print(told(campaign(options)))


if __name__ == "__main__":
    main()
