"""A test's folder is complete or absent, and answers are never lost."""

from pathlib import Path

import pytest

from tonewood.errors import OutputError
from tonewood.listening.builder import check_test_folder, create_test_folder
from tonewood.listening.database import AnswerDatabase
from tonewood.listening.definition import ANSWERS_FILE, STIMULI_FOLDER, TEST_FILE


def make(out: Path, text: str, overwrite: bool = False) -> None:
    with create_test_folder(out, overwrite) as folder:
        (folder / TEST_FILE).write_text(text)
        (folder / STIMULI_FOLDER).mkdir()
        (folder / STIMULI_FOLDER / f"{text}.wav").touch()


def fail(out: Path) -> None:
    with create_test_folder(out, overwrite=True) as folder:
        (folder / TEST_FILE).write_text("two")
        raise RuntimeError("halfway")


def replace_while_it_is_answered(out: Path) -> None:
    with create_test_folder(out, overwrite=True) as folder:
        (folder / TEST_FILE).write_text("two")
        listener = AnswerDatabase(out / ANSWERS_FILE).add_listener("yes")
        AnswerDatabase(out / ANSWERS_FILE).save_answer(listener.id, 0, "a", final=True, seconds=1.0)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_folder_appears_when_complete(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "test"
    with create_test_folder(out, False) as folder:
        (folder / TEST_FILE).write_text("one")
        assert not out.exists()
    assert names(tmp_path) == ["deep", "deep/test", f"deep/test/{TEST_FILE}"]


def test_failed_build_leaves_previous_folder_unchanged(tmp_path: Path) -> None:
    out = tmp_path / "test"
    make(out, "one")
    before = names(tmp_path)
    with pytest.raises(RuntimeError, match="halfway"):
        fail(out)
    assert names(tmp_path) == before
    assert (out / TEST_FILE).read_text() == "one"


def test_replacement_needs_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "test"
    make(out, "one")
    with pytest.raises(OutputError, match="exists: choose another output or pass --overwrite"):
        make(out, "two")
    assert (out / TEST_FILE).read_text() == "one"
    make(out, "two", overwrite=True)
    assert names(out) == [STIMULI_FOLDER, f"{STIMULI_FOLDER}/two.wav", TEST_FILE]
    assert names(tmp_path)[0] == "test"


def test_answers_are_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "test"
    make(out, "one")
    AnswerDatabase(out / ANSWERS_FILE)
    check_test_folder(out, overwrite=True)  # there are no answers yet
    with pytest.raises(OutputError, match="contains answers, which are never replaced"):
        replace_while_it_is_answered(out)
    assert (out / TEST_FILE).read_text() == "one"
    with pytest.raises(OutputError, match="never replaced"):
        check_test_folder(out, overwrite=True)
    assert not [name for name in names(tmp_path) if name.startswith(".tonewood")]


def test_folder_with_other_files_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    with pytest.raises(OutputError, match="notes contains other files"):
        make(tmp_path / "notes", "one", overwrite=True)
    with pytest.raises(OutputError, match=r"mine\.txt is a file; a test needs a folder"):
        make(tmp_path / "notes" / "mine.txt", "one", overwrite=True)
    with pytest.raises(OutputError, match="cannot be created"):
        make(tmp_path / "notes" / "mine.txt" / "deeper", "one")
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty", "one")
    assert (tmp_path / "empty" / TEST_FILE).read_text() == "one"
