"""Values of options and arguments that the command line refuses, in one line where it can."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

Run = Callable[..., Any]


@pytest.fixture
def take(tmp_path: Path, play: Callable[..., Any]) -> Path:
    """A good recording."""
    path = tmp_path / "good.wav"
    soundfile.write(path, play(1.2).T, 16_000)
    return path


WRONG_CALLS = {
    "--steps -1": r"--steps is -1: give a whole number from 0 to 10000",
    "--amount 2.5": r"--amount is 2\.5: give a number from -1 to 2",
    "--amount -1.5": r"--amount is -1\.5: give a number from -1 to 2",
    "--smooth 9": "--smooth is 9: give a number from 0 to 4",
    "--smooth-seconds -1": "--smooth-seconds is -1: give a number from 0",
    "--low 0": "--low is 0: give a number above 0",
    "--low 500 --high 400": "--low and --high: limits from 500 Hz to 400 Hz are empty",
    "--link all": r"--link is 'all': choose on \(one mask for all channels\) or off \(one for each\)",
    "--mid-side --link off": "--mid-side and --link off cannot be used together",
    "--cut-only --boost-only": "--cut-only and --boost-only cannot be used together: use one of them",
    "--amount nan": r"amount is nan",
    "--between 5000:200": "(?<=tonewood: )--between: a band from 5000 Hz to 200 Hz is empty: give LOW:HIGH",
    "--from 5 --to 2": "(?<=tonewood: )--from and --to: a span from 5 s to 2 s is empty: end after the start",
    "--between nan:400": "--between is nan: give a number",
    "--prior louder": r"'louder': choose auto, none, random, blocks, static",
    '--prior a"b': r"""'a"b': choose auto, none""",
    "--method magic": r"'magic': choose search",
    "--seed -1": "seed is -1: give a whole number from 0",
    "--set nothing": "'nothing' is not an assignment: give NAME=VALUE",
    "--set search.nothing=1": "there is no setting 'search.nothing'",
    "--set search=1": "search is 1",
    "--set search.alpha=much": "alpha is 'much': .*number",
    "--set search.optimiser=Magic": "optimiser is 'Magic': choose Adam,",
    "--set search.alpha=Infinity": "alpha is inf: give a number",
}


@pytest.mark.parametrize("words", WRONG_CALLS)
def test_wrong_value_exits_with_code_2(
    tmp_path: Path, take: Path, run: Run, model_file: Path, words: str
) -> None:
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, *words.split())
    assert ran.code == 2, ran.err
    assert re.fullmatch(f"tonewood: .*{WRONG_CALLS[words]}.*\n", ran.err), ran.err
    assert ran.out == ""
    assert not (tmp_path / "out").exists()


MISSING_FILES = {
    "enhance {take} -o out.wav --curve gone.csv": "check the file",
    "evaluate --pairs {folder} {folder} --table gone.csv": "give a CSV file",
    "train -o a.tonewood --preferences gone.csv": "name a CSV table",
    "train -o a.tonewood --manifest gone.csv": "name a CSV or JSONL",
    "train -o a.tonewood --reference a --source b --notice gone.csv": "name a text file",
}


@pytest.mark.parametrize("call", MISSING_FILES)
def test_missing_file_is_no_wrong_call(run: Run, take: Path, call: str) -> None:
    ran = run(*call.format(take=take, folder=take.parent).split())
    assert ran.code == 1, ran.err
    assert re.fullmatch(rf"tonewood: gone\.csv cannot be read .*: {MISSING_FILES[call]}\n", ran.err)


@pytest.mark.parametrize("words", ["", "listen"])
def test_group_without_a_command_lists_its_commands(run: Run, words: str) -> None:
    ran = run(*words.split())
    assert ran.code == 2
    assert f"Usage: tonewood {words}".strip() in ran.out + ran.err
    assert "Commands:" in ran.out + ran.err


WRONG_WORDS = {
    "--versoin": "there is no option --versoin: did you mean --version?",
    "enhanc a.wav": "there is no command 'enhanc': did you mean enhance?",
    "listen srve x": "listen has no command 'srve': did you mean serve?",
    "nonsense": "there is no command 'nonsense': see tonewood -h",
    "enhance": "INPUT is missing (files, folders or URLs such as s3://…): see tonewood enhance -h",
    "enhance a.wav": (
        "--output is missing (output folder, URL, or output file for a single INPUT): see tonewood enhance -h"
    ),
    "listen new": "--output is missing (folder of the new test): see tonewood listen new -h",
    "enhance a.wav -o out --oput x": "enhance has no option --oput: did you mean --output?",
    "enhance a.wav -o out --zzz": "enhance has no option --zzz: see tonewood enhance -h",
    "enhance a.wav -o out -amount 3": "enhance has no option -amount: did you mean --amount?",
    "enhance a.wav -o out -q": "enhance has no option -q: see tonewood enhance -h",
    "enhance a.wav -o out --amount": "--amount needs a value: give a number from -1 to 2",
    "enhance a.wav -o": "-o needs a value: see tonewood enhance -h",
    "enhance a.wav -o out --json=3": "--json takes no value: leave out what follows it",
    "train --reference a --source b -o t.wav": (
        "--output t.wav is not a model file: end the name in .tonewood"
    ),
    "onnx cello -o x.wav": "--output x.wav is not an ONNX file: end the name in .onnx",
    "score a.wav --quiet": "--quiet prints no scores: add --parquet FILE or --json, or leave out --quiet",
    "info a b": "info has no place for b: see tonewood info -h",
    "info a b c": "info has no place for b c: see tonewood info -h",
}


@pytest.mark.parametrize("words", WRONG_WORDS)
def test_unknown_and_missing_words_are_one_line(run: Run, words: str) -> None:
    ran = run(*words.split())
    assert (ran.code, ran.out, ran.err) == (2, "", f"tonewood: {WRONG_WORDS[words]}\n")


@pytest.mark.parametrize("name", ["-o.wav", "-take.wav", "--loud.wav"])
def test_name_that_begins_with_a_dash_is_explained(
    run: Run, take: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    take.rename(tmp_path / name)
    ran = run("enhance", name, "-o", "out")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"tonewood: {name} is read as an option, because its name begins with -: write ./{name}\n"
    )


NUMBERS = {
    "enhance a.wav -o out --amount abc": "--amount is 'abc': give a number from -1 to 2",
    "enhance a.wav -o out --low abc": "--low is 'abc': give a number above 0",
    "live --smooth-seconds abc": "--smooth-seconds is 'abc': give a number from 0 to 60",
    "apply r.json a.wav -o out --smooth x": "--smooth is 'x': give a number from 0 to 4",
    "enhance a.wav -o out --steps many": "--steps is 'many': give a whole number from 0 to 10000",
    "enhance a.wav -o out --steps 1e3": "--steps is 1e3: give a whole number from 0 to 10000",
    "enhance a.wav -o out --seed x": "--seed is 'x': give a whole number from 0 to 2147483647",
    "train --reference a --source b -o c --seed -1": "--seed is -1: give a whole number from 0 to 2147483647",
    "evaluate --pairs a b --seed -1": "--seed is -1: give a whole number from 0 to 2147483647",
    "score a.wav --workers 1.5": "--workers is 1.5: give a whole number from 1",
    "score a.wav --workers 0": "--workers is 0: give a whole number from 1",
    "export cello -o a.txt --max-gain x": "--max-gain is 'x': give a number from 0 to 24",
    "export cello -o a.wav --length 1": "--length is 1: give a whole number from 64 to 1048576",
    "export cello -o a.csv --step 0": "--step is 0: give a number from 0.01 to 10",
    "listen new -o x --seconds 3": "--seconds is 3: give a number from 5 to 12",
    "listen new -o x --excerpts 0": "--excerpts is 0: give a whole number from 1",
    "score a.wav --retries -1": "--retries is -1: give a whole number from 0",
    "explain a.wav -o a.png --seed -1": "--seed is -1: give a whole number from 0 to 2147483647",
    "export cello -o a.txt --bands ten": "--peq is 'ten': give a whole number from 1 to 20",
    "live --block 3": "--block is 3: give a whole number from 16 to 8192",
    "studio --upload-gb 0": "--upload-gb is 0: give a number from 0.001 to 1000",
    "listen serve folder --port x": "--port is 'x': give a whole number from 0 to 65535",
}


@pytest.mark.parametrize("call", NUMBERS)
def test_value_that_is_not_a_number_is_one_line(run: Run, call: str) -> None:
    ran = run(*call.split())
    assert (ran.code, ran.out, ran.err) == (2, "", f"tonewood: {NUMBERS[call]}\n")


OTHER_VALUES = {
    "--between 5": "--between is '5': give LOW:HIGH in Hz, as in 200:4000",
    "--from soon": "--from is 'soon': give seconds or MIN:SEC, as in 10 or 1:02",
    "--to 1:2:3:4": "--to is '1:2:3:4': give seconds or MIN:SEC, as in 10 or 1:02",
    "--parquet p.csv": "--parquet p.csv is not a Parquet file: end the name in .parquet or .pq",
}


@pytest.mark.parametrize("words", OTHER_VALUES)
def test_wrong_text_names_its_option(
    run: Run, take: Path, tmp_path: Path, model_file: Path, words: str
) -> None:
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, *words.split())
    assert (ran.code, ran.out, ran.err) == (2, "", f"tonewood: {OTHER_VALUES[words]}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "call",
    ["enhance '' -o x", "enhance {take} -o ''", "enhance {take} -o x -m ''", "enhance {take} '' -o x",
     "audit --reference '' --source x", "train --reference x --source '' -o x", "score ''", "diff '' x",
     "render '' -o x", "explain '' -o x.png", "evaluate --pairs '' x", "listen serve ''", "inventory ''",
     "studio --root ''", "score {take} --parquet="],
)  # fmt: skip
def test_empty_name_is_refused(run: Run, take: Path, call: str) -> None:
    """`Path("")` is the current folder: an empty variable must not enhance it."""
    ran = run(*shlex.split(call.format(take=take)))
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(r"tonewood: (--)?\w+ is empty: give a name, .*\n", ran.err)


def test_empty_text_is_allowed_where_it_is_the_default(run: Run, tmp_path: Path) -> None:
    ran = run("train", "--reference", tmp_path, "--source", tmp_path, "-o", tmp_path / "x", "--domain", "")
    assert "is given as both folders" in ran.err
