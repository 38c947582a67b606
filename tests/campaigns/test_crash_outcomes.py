"""Trouble of other kinds, each with the end that docs/security.md states."""

import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from campaigns.harness.crash.commands import LEAST, MODEL
from campaigns.harness.crash.runs import Nursery, Scene, Whole, content, left_in, state, unlike
from tonewood.audio_io.reader import file_sha256
from tonewood.enhancement import recipe
from tonewood.errors import OutputError
from tonewood.listening.database import AnswerDatabase

Get = Callable[[str], Scene]
Through = Callable[[str], tuple[Whole, int]]
COMMANDS = ("enhance, a folder", "enhance, --parquet", "train", "listen new")
pytestmark = pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no such limits here")


def told(work: Path) -> str:
    return (work / "log").read_text()


def made(work: Path) -> dict[str, str]:
    """What a run left under final names; hidden files, and tables on their way, as well."""
    return {name: held for name, held in state(work).items() if not name.startswith("cache/")}


@pytest.mark.parametrize("name", COMMANDS)
def test_full_disk(scene: Get, through: Through, nursery: Nursery, tmp_path: Path, name: str) -> None:
    asked, work = scene(name), tmp_path / "work"
    whole, _ = through(name)
    code, _ = nursery.run(asked.first(asked.fresh(work)), work, most_bytes=9_000)
    assert code == 1, told(work)
    assert "Traceback" not in told(work)
    assert "full" in told(work)
    assert {it for it in made(work) if not it.endswith(".parquet")} == set()  # which tells of it
    assert left_in(work / "tmp") == []
    code, _ = nursery.run(asked.again(work), work)
    assert code == 0, told(work)
    assert unlike(work, whole.made) == []


@contextmanager
def disk_of(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own, where one may be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_really_is_full(inputs: Path, nursery: Nursery, tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "work" / "out"
    for name in ("out", "tmp", "cache"):
        (work / name).mkdir(parents=True)
    command = ["enhance", str(inputs / "takes"), "-m", MODEL, "-o", str(out), *LEAST]
    with disk_of(out, "16m"):
        (out / "theirs").write_bytes(bytes((16 << 20) - 100_000))
        assert nursery.run(command, work)[0] == 1, told(work)
        assert "disk" in told(work)
        assert "is full: free some space" in told(work)
        assert [it.name for it in out.rglob("*") if it.is_file()] == ["theirs"]
        (out / "theirs").unlink()
        assert nursery.run(command, work)[0] == 0, told(work)


@pytest.mark.parametrize("name", [*COMMANDS, "enhance, a file"])
def test_read_only_folder(scene: Get, nursery: Nursery, tmp_path: Path, name: str) -> None:
    asked, work = scene(name), tmp_path / "work"
    command = asked.first(asked.fresh(work))
    (work / "out").chmod(0o555)
    code, _ = nursery.run(command, work, powerless=True)
    (work / "out").chmod(0o755)
    assert code == 1, told(work)
    assert "permission denied" in told(work)
    assert len(told(work).strip().splitlines()) <= 3
    assert list((work / "out").iterdir()) == []


def test_a_cache_that_cannot_be_written_stops_nothing(scene: Get, nursery: Nursery, tmp_path: Path) -> None:
    asked, work = scene("train"), tmp_path / "work"
    command = asked.first(asked.fresh(work))
    (work / "cache").chmod(0o555)
    code, _ = nursery.run(command, work, powerless=True)
    (work / "cache").chmod(0o755)
    assert code == 0, told(work)
    assert list((work / "cache").iterdir()) == []


@pytest.mark.parametrize(("amount", "every"), [("1", 3), ("0", 3)])
def test_vanished_input(inputs: Path, nursery: Nursery, tmp_path: Path, amount: str, every: int) -> None:
    # Whenever it goes: all is there and right, or nothing is and the reason is told.
    work = tmp_path / "work"
    codes = []
    for turn in range(1, 60, every):
        shutil.rmtree(work, ignore_errors=True)
        for name in ("out", "tmp", "cache"):
            (work / name).mkdir(parents=True)
        take = work / "take.flac"
        shutil.copyfile(inputs / "tagged.flac", take)
        command = ["enhance", str(take), "-m", MODEL, "-o", str(work / "out"), *LEAST]
        command += ["--amount", amount]
        code, _ = nursery.run(command, work, vanish=[str(take), turn])
        codes.append(code)
        assert "Traceback" not in told(work), turn
        if take.exists():
            break
        if code == 1:
            assert "take.flac does not exist: check its name" in told(work), turn
            assert list((work / "out").iterdir()) == [], turn
        else:
            assert len(list((work / "out").iterdir())) == 2, turn
    assert codes[0] == 1
    assert codes[-1] == 0
    assert len(codes) > 3


@pytest.mark.parametrize("name", ["enhance, --parquet", "train"])
def test_a_clock_that_goes_back(
    scene: Get, through: Through, nursery: Nursery, tmp_path: Path, name: str
) -> None:
    asked, work = scene(name), tmp_path / "work"
    whole, steps = through(name)
    nursery.run(asked.first(asked.fresh(work)), work, step=2 * steps // 3)  # now, and then before
    code, _ = nursery.run(asked.again(work), work, backwards=True)
    assert code == 0, told(work)
    assert unlike(work, whole.made) == []


@pytest.mark.parametrize("amount", ["1", "0.5"])
def test_two_runs_into_one_folder(
    scene: Get, through: Through, nursery: Nursery, tmp_path: Path, amount: str
) -> None:
    name = "enhance, a folder"
    asked, work = scene(name), tmp_path / "work"
    whole, _ = through(name)
    command = asked.first(asked.fresh(work))
    with Nursery() as other:
        other.start([*command, "--amount", amount], work)
        nursery.start(command, work)
        codes = [other.ended()[0], nursery.ended()[0]]
    if amount == "1":
        assert codes == [0, 0], told(work)
        assert unlike(work, whole.made) == []
        return
    # Two that differ: each output is one's or the other's, with its own recipe.
    assert sorted(codes) in ([0, 1], [1, 1]), told(work)
    assert "exists: name another output or pass --overwrite" in told(work)
    assert set(made(work)) == set(whole.made)
    for side in (work / "out").rglob(f"*{recipe.RECIPE_SUFFIX}"):
        sound = side.with_name(side.name.removesuffix(recipe.RECIPE_SUFFIX))
        assert recipe.load_recipe(side).output_sha256 == file_sha256(sound)


def test_two_trainings_of_one_model(scene: Get, through: Through, nursery: Nursery, tmp_path: Path) -> None:
    name = "train"
    asked, work = scene(name), tmp_path / "work"
    whole, _ = through(name)
    command = asked.first(asked.fresh(work))
    with Nursery() as other:
        other.start(command, work)
        nursery.start(command, work)
        codes = sorted([other.ended()[0], nursery.ended()[0]])
    assert codes == [0, 1], told(work)
    assert "is being written by another process" in told(work)
    assert content(work / "out/ours.tonewood") == whole.made["out/ours.tonewood"]
    assert unlike(work, whole.made) == []


def test_answers_on_a_full_disk(tmp_path: Path) -> None:
    answers = AnswerDatabase(tmp_path / "answers.sqlite")
    who = answers.add_listener("yes").id
    assert answers.save_answer(who, 0, "A", final=True, seconds=1.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (answers.path.stat().st_size, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot be used .*: check the folder and the disk"):
            answers.save_answer(who, 1, "B" * 40_000, final=True, seconds=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {screen: it.value for screen, it in answers.answers_of(who).items()} == {0: "A"}
    assert answers.save_answer(who, 1, "B", final=True, seconds=1.0)


def test_answers_by_a_clock_that_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = AnswerDatabase(tmp_path / "answers.sqlite")
    now = iter([1e9, 9e8, 8e8, -1.0, 0.0])
    monkeypatch.setattr("time.time", lambda: next(now))
    people = [answers.add_listener("yes") for _ in range(2)]
    for screen, value in enumerate("ABA"):
        answers.save_answer(people[0].id, screen, value, final=True, seconds=1.0)
    assert [it.value for it in answers.answers_of(people[0].id).values()] == ["A", "B", "A"]
    assert [it.number for it in answers.list_listeners()] == [0, 1]


def test_two_servers_of_one_test(tmp_path: Path) -> None:
    both = [AnswerDatabase(tmp_path / "answers.sqlite") for _ in range(2)]
    people = [both[k % 2].add_listener("yes") for k in range(6)]
    assert sorted(it.number for it in people) == list(range(6))
    assert both[0].save_answer(people[0].id, 0, "A", final=True, seconds=1.0)
    assert not both[1].save_answer(people[0].id, 0, "B", final=True, seconds=1.0)
    found: Any = both[1].answers_of(people[0].id)
    assert found[0].value == "A"
