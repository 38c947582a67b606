"""A test's folder is whole or absent, and nothing that anybody answered is ever lost."""

from pathlib import Path

import pytest

from tonewood.errors import OutputError
from tonewood.listening.answers import Answers
from tonewood.listening.design import ANSWERS, STIMULI, TEST
from tonewood.listening.folder import check_new, new_folder


def make(out: Path, text: str, overwrite: bool = False) -> None:
    with new_folder(out, overwrite) as folder:
        (folder / TEST).write_text(text)
        (folder / STIMULI).mkdir()
        (folder / STIMULI / f"{text}.wav").touch()


def fail(out: Path) -> None:
    with new_folder(out, overwrite=True) as folder:
        (folder / TEST).write_text("two")
        raise RuntimeError("halfway")


def replace_while_it_is_answered(out: Path) -> None:
    with new_folder(out, overwrite=True) as folder:
        (folder / TEST).write_text("two")
        listener = Answers(out / ANSWERS).join("yes")
        Answers(out / ANSWERS).keep(listener.id, 0, "a", final=True, seconds=1.0)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_folder_appears_when_all_is_in_it(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "test"
    with new_folder(out, False) as folder:
        (folder / TEST).write_text("one")
        assert not out.exists()
    assert names(tmp_path) == ["deep", "deep/test", f"deep/test/{TEST}"]


def test_what_fails_leaves_nothing_and_what_was_there_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "test"
    make(out, "one")
    before = names(tmp_path)
    with pytest.raises(RuntimeError, match="halfway"):
        fail(out)
    assert names(tmp_path) == before
    assert (out / TEST).read_text() == "one"


def test_a_test_is_replaced_wholly_and_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "test"
    make(out, "one")
    with pytest.raises(OutputError, match="exists: name another output or pass --overwrite"):
        make(out, "two")
    assert (out / TEST).read_text() == "one"
    make(out, "two", overwrite=True)
    assert names(out) == [STIMULI, f"{STIMULI}/two.wav", TEST]
    assert names(tmp_path)[0] == "test"


def test_answers_are_never_replaced_even_those_that_came_meanwhile(tmp_path: Path) -> None:
    out = tmp_path / "test"
    make(out, "one")
    Answers(out / ANSWERS)
    check_new(out, overwrite=True)  # nobody has answered yet
    with pytest.raises(OutputError, match="holds answers, which are never replaced"):
        replace_while_it_is_answered(out)
    assert (out / TEST).read_text() == "one"
    with pytest.raises(OutputError, match="never replaced"):
        check_new(out, overwrite=True)
    assert not [name for name in names(tmp_path) if name.startswith(".tonewood")]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    with pytest.raises(OutputError, match="notes holds something else"):
        make(tmp_path / "notes", "one", overwrite=True)
    with pytest.raises(OutputError, match=r"mine\.txt is a file; a test needs a folder"):
        make(tmp_path / "notes" / "mine.txt", "one", overwrite=True)
    with pytest.raises(OutputError, match="cannot be made"):
        make(tmp_path / "notes" / "mine.txt" / "deeper", "one")
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty", "one")
    assert (tmp_path / "empty" / TEST).read_text() == "one"
