"""Other faults of disk, clock and inputs, with the outcomes that docs/security.md states."""

import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from campaigns.harness.crash.commands import MINIMAL_OPTIONS, MODEL
from campaigns.harness.crash.runs import (
    Command,
    ForkServer,
    content,
    differences,
    leftover_files,
    state,
)
from campaigns.harness.training import set_options
from tests.campaigns.conftest import PreparedCommand
from tonewood.audio_io.recording import file_sha256
from tonewood.enhancement import recipe
from tonewood.errors import OutputError
from tonewood.listening.database import AnswerDatabase

CommandByName = Callable[[str], Command]
COMMANDS = (
    pytest.param("enhance, a folder", marks=pytest.mark.long),
    "enhance, --parquet",
    pytest.param("train", marks=pytest.mark.long),
    "listen new",
)
pytestmark = pytest.mark.skipif(
    not hasattr(resource, "RLIMIT_FSIZE"), reason="this system has no limit on file sizes"
)


def log_text(work: Path) -> str:
    return (work / "log").read_text()


def outputs_of(work: Path) -> dict[str, str]:
    """Return the outputs of a run, with hidden files and unfinished tables."""
    return {name: digest for name, digest in state(work).items() if not name.startswith("cache/")}


@pytest.mark.parametrize("prepared", COMMANDS, indirect=True)
def test_full_disk_is_reported_and_work_continues(prepared: PreparedCommand, fork_server: ForkServer) -> None:
    work = prepared.work
    code, _ = fork_server.run(prepared.first(), work, most_bytes=9_000)
    assert code == 1, log_text(work)
    assert "Traceback" not in log_text(work)
    assert "full" in log_text(work)
    # The table remains, because it lists the failures.
    assert [name for name in outputs_of(work) if not name.endswith(".parquet")] == []
    assert leftover_files(work / "tmp") == []
    code, _ = fork_server.run(prepared.again(), work)
    assert code == 0, log_text(work)
    assert differences(work, prepared.undisturbed.outputs) == []


@contextmanager
def disk_of(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small disk, or skip the test."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a disk is not permitted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_mounted_disk_that_is_full_is_reported(inputs: Path, fork_server: ForkServer, tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "work" / "out"
    for name in ("out", "tmp", "cache"):
        (work / name).mkdir(parents=True)
    command = ["enhance", str(inputs / "takes"), "-m", MODEL, "-o", str(out), *MINIMAL_OPTIONS]
    with disk_of(out, "16m"):
        (out / "theirs").write_bytes(bytes((16 << 20) - 100_000))
        assert fork_server.run(command, work)[0] == 1, log_text(work)
        assert "disk" in log_text(work)
        assert "is full: free some space" in log_text(work)
        assert [path.name for path in out.rglob("*") if path.is_file()] == ["theirs"]
        (out / "theirs").unlink()
        assert fork_server.run(command, work)[0] == 0, log_text(work)


@pytest.mark.parametrize(
    "name", ["enhance, a folder", "enhance, --parquet", "train", "listen new", "enhance, a file"]
)
def test_read_only_folder_is_reported(
    command_by_name: CommandByName, fork_server: ForkServer, tmp_path: Path, name: str
) -> None:
    tested, work = command_by_name(name), tmp_path / "work"
    command = tested.first(tested.fresh(work))
    (work / "out").chmod(0o555)
    code, _ = fork_server.run(command, work, powerless=True)
    (work / "out").chmod(0o755)
    assert code == 1, log_text(work)
    assert "permission denied" in log_text(work)
    # Two recordings, each named with its reason and at the end, and the sum.
    assert len(log_text(work).strip().splitlines()) <= 6
    assert list((work / "out").iterdir()) == []


def test_read_only_cache_is_not_used(
    command_by_name: CommandByName, fork_server: ForkServer, tmp_path: Path
) -> None:
    tested, work = command_by_name("train"), tmp_path / "work"
    command = [*tested.first(tested.fresh(work)), "--no-judge", *set_options("training.steps=2")]
    (work / "cache").chmod(0o555)
    code, _ = fork_server.run(command, work, powerless=True)
    (work / "cache").chmod(0o755)
    assert code == 0, log_text(work)
    assert list((work / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("amount", "every"),
    [
        ("1", 4),
        *(pytest.param(*case, marks=pytest.mark.long) for case in (("1", 1), ("0", 1))),
    ],
)
def test_removed_input_is_reported_or_finished(
    inputs: Path, fork_server: ForkServer, tmp_path: Path, amount: str, every: int
) -> None:
    # At any moment: either all outputs are complete, or there are none and the reason is reported.
    work = tmp_path / "work"
    codes = []
    for turn in range(1, 60, every):
        shutil.rmtree(work, ignore_errors=True)
        for name in ("out", "tmp", "cache"):
            (work / name).mkdir(parents=True)
        take = work / "take.flac"
        shutil.copyfile(inputs / "tagged.flac", take)
        command = ["enhance", str(take), "-m", MODEL, "-o", str(work / "out"), *MINIMAL_OPTIONS]
        command += ["--amount", amount]
        code, _ = fork_server.run(command, work, vanish=[str(take), turn])
        codes.append(code)
        assert "Traceback" not in log_text(work), turn
        if take.exists():
            break
        if code == 1:
            assert "take.flac does not exist: check its name" in log_text(work), turn
            assert list((work / "out").iterdir()) == [], turn
        else:
            assert len(list((work / "out").iterdir())) == 2, turn
    assert codes[0] == 1
    assert codes[-1] == 0
    assert len(codes) > 3


@pytest.mark.parametrize(
    "prepared", ["enhance, --parquet", pytest.param("train", marks=pytest.mark.long)], indirect=True
)
def test_clock_that_runs_backwards_changes_nothing(
    prepared: PreparedCommand, fork_server: ForkServer
) -> None:
    work = prepared.work
    fork_server.run(prepared.first(), work, step=2 * prepared.steps // 3)
    code, _ = fork_server.run(prepared.again(), work, backwards=True)
    assert code == 0, log_text(work)
    assert differences(work, prepared.undisturbed.outputs) == []


@pytest.mark.parametrize("amount", ["1", "0.5"])
@pytest.mark.parametrize("prepared", ["enhance, a folder"], indirect=True)
def test_two_runs_share_one_folder(prepared: PreparedCommand, fork_server: ForkServer, amount: str) -> None:
    work, outputs = prepared.work, prepared.undisturbed.outputs
    command = prepared.first()
    codes = fork_server.run_two([*command, "--amount", amount], command, work)
    if amount == "1":
        assert codes == (0, 0), log_text(work)
        assert differences(work, outputs) == []
        return
    # With different settings, each output is from one run and has its own recipe.
    assert sorted(codes) in ([0, 1], [1, 1]), log_text(work)
    assert "exists: name another output or pass --overwrite" in log_text(work)
    assert set(outputs_of(work)) == set(outputs)
    for recipe_file in (work / "out").rglob(f"*{recipe.RECIPE_SUFFIX}"):
        sound = recipe_file.with_name(recipe_file.name.removesuffix(recipe.RECIPE_SUFFIX))
        assert recipe.load_recipe(recipe_file).output_sha256 == file_sha256(sound)


@pytest.mark.parametrize("prepared", ["train"], indirect=True)
def test_second_training_of_one_model_is_refused(prepared: PreparedCommand, fork_server: ForkServer) -> None:
    work, outputs = prepared.work, prepared.undisturbed.outputs
    command = prepared.first()
    codes = fork_server.run_two(command, command, work)
    assert sorted(codes) == [0, 1], log_text(work)
    assert "is being written by another process" in log_text(work)
    assert content(work / "out/ours.tonewood") == outputs["out/ours.tonewood"]
    assert differences(work, outputs) == []


def test_full_disk_keeps_earlier_answers(tmp_path: Path) -> None:
    answers = AnswerDatabase(tmp_path / "answers.sqlite")
    listener = answers.add_listener("yes").id
    assert answers.save_answer(listener, 0, "A", final=True, seconds=1.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (answers.path.stat().st_size, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot be used .*: check the folder and the disk"):
            answers.save_answer(listener, 1, "B" * 40_000, final=True, seconds=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {screen: answer.value for screen, answer in answers.answers_of(listener).items()} == {0: "A"}
    assert answers.save_answer(listener, 1, "B", final=True, seconds=1.0)


def test_answers_are_kept_when_the_clock_runs_backwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = AnswerDatabase(tmp_path / "answers.sqlite")
    now = iter([1e9, 9e8, 8e8, -1.0, 0.0])
    monkeypatch.setattr("time.time", lambda: next(now))
    people = [answers.add_listener("yes") for _ in range(2)]
    for screen, value in enumerate("ABA"):
        answers.save_answer(people[0].id, screen, value, final=True, seconds=1.0)
    assert [answer.value for answer in answers.answers_of(people[0].id).values()] == ["A", "B", "A"]
    assert [listener.number for listener in answers.list_listeners()] == [0, 1]


def test_two_servers_share_one_test(tmp_path: Path) -> None:
    both = [AnswerDatabase(tmp_path / "answers.sqlite") for _ in range(2)]
    people = [both[k % 2].add_listener("yes") for k in range(6)]
    assert sorted(listener.number for listener in people) == list(range(6))
    assert both[0].save_answer(people[0].id, 0, "A", final=True, seconds=1.0)
    assert not both[1].save_answer(people[0].id, 0, "B", final=True, seconds=1.0)
    assert both[1].answers_of(people[0].id)[0].value == "A"
