"""What `scripts/mutants.py` goes by: which tests a change is given to, and what is told of it."""

from importlib.util import cache_from_source, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    spec = spec_from_file_location("mutants", ROOT / "scripts" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CODE = """\
def f(a, b):
    if a > b and (
        a > 0
    ):
        return g(
            a,
            b,
        )
    return 0


LIMIT = 3
"""


@pytest.mark.parametrize(
    ("line", "first", "last"), [(1, 1, 1), (3, 2, 4), (6, 5, 8), (9, 9, 9), (12, 12, 12)]
)
def test_a_change_is_looked_up_by_its_whole_statement_and_a_condition_without_its_body(
    mutants: ModuleType, line: int, first: int, last: int
) -> None:
    assert mutants.statement(CODE, line, line) == range(first, last + 1)


def test_a_mutant_says_which_lines_it_changes(mutants: ModuleType) -> None:
    made = mutants.mutant("f.py", 7, CODE, CODE.replace("            a,\n", "            None,\n"))
    assert (made.line, made.last, made.change) == (6, 6, "-            a,\n+            None,")


def test_own_tests_come_first_then_fast_ones_while_time_lasts(mutants: ModuleType) -> None:
    cover = mutants.Cover.__new__(mutants.Cover)
    cover.seconds = {
        "tests/workflow/test_a.py::slow": 20.0,
        "tests/workflow/test_a.py::fast": 0.1,
        "tests/signal/test_bands.py::own": 5.0,
        "tests/signal/test_blocks.py::near": 3.0,
        "tests/signal/test_bands.py::elsewhere": 0.1,
    }
    every = [it for it in cover.seconds if not it.endswith("elsewhere")]
    cover.lines = {"src/tonewood/signal/bands.py": {18: every, 90: ["", *cover.seconds]}}
    it = mutants.Mutant("src/tonewood/signal/bands.py", 18, 18, 0, "", "")
    assert [name.partition("::")[2] for name in cover.tests(it, 10)] == ["own", "near", "fast"]
    assert len(cover.tests(it, 100)) == 4
    assert len(cover.tests(it, 0)) == 1
    # A line that no test runs by itself is run when the module is imported.
    assert len(cover.tests(it._replace(line=1, last=1), 100)) == 5
    assert cover.tests(it._replace(file="src/tonewood/signal/blocks.py"), 100) == []


def test_a_change_within_the_second_is_not_hidden_by_old_bytecode(
    mutants: ModuleType, tmp_path: Path
) -> None:
    place = tmp_path / "a.py"
    kept = Path(cache_from_source(str(place)))
    kept.parent.mkdir()
    kept.touch()
    mutants.swap(place, "b = 1")
    assert not kept.exists()
    assert place.read_text() == "b = 1"


def test_the_interval_is_wilsons(mutants: ModuleType) -> None:
    # Wilson (1927), as in Newcombe (1998), table I: 81 of 263.
    low, high = mutants.interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert mutants.interval(10, 10)[1] == pytest.approx(1)


def test_what_survived_is_listed_and_what_timed_out_is_killed(mutants: ModuleType) -> None:
    def one(became: str, file: str = "signal/a.py") -> dict[str, object]:
        return {"file": f"src/tonewood/{file}", "line": 3, "change": "-a\n+b", "became": became}

    told = mutants.told(
        [one("killed"), one("timed out"), one("survived"), one("run by no test", "scoring/b.py")]
    )
    assert "| signal | 3 | 2 | 67% |" in told
    assert "| scoring | 1 | 0 | 0% |" in told
    assert "| all | 4 | 2 | 50% |" in told
    assert "masking" not in told
    assert told.count("@@ ") == 2
    assert "@@ signal/a.py:3, survived\n-a\n+b" in told
