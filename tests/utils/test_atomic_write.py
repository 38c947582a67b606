import errno
import fcntl
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tonewood.errors import OutputError, printable
from tonewood.utils import files
from tonewood.utils.files import (
    atomic_path,
    exclusive_lock,
    remove_stale_temporaries,
    write_bytes,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def refusing(code: int) -> Any:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return refuse


def test_file_appears_only_when_complete(tmp_path: Path) -> None:
    final = tmp_path / "a.json"
    with atomic_path(final) as temporary:
        temporary.write_text("{}")
        assert not final.exists()
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"
        assert temporary.name.startswith(".")
    assert names(tmp_path) == ["a.json"]
    assert final.read_text() == "{}"


@pytest.mark.parametrize("failure", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("old", [None, b"old"])
def test_failure_leaves_the_old_file(tmp_path: Path, failure: BaseException, old: bytes | None) -> None:
    final = tmp_path / "a.bin"
    if old is not None:
        final.write_bytes(old)

    def fail() -> None:
        with atomic_path(final, overwrite=True) as temporary:
            temporary.write_bytes(b"half")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert names(tmp_path) == ([] if old is None else ["a.bin"])
    assert old is None or final.read_bytes() == old


def test_existing_files_need_overwrite(tmp_path: Path) -> None:
    final = tmp_path / "a.txt"
    write_text(final, "first")
    with pytest.raises(OutputError, match=r"a\.txt exists: name another .* pass --overwrite"):
        write_text(final, "second")
    assert final.read_text() == "first"
    write_text(final, "zwölf", overwrite=True)
    assert final.read_bytes() == "zwölf".encode()
    assert names(tmp_path) == ["a.txt"]


def test_existing_file_is_an_error_before_the_block(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(OutputError, match="exists"), atomic_path(tmp_path / "a"):
        pytest.fail("the block ran")


@pytest.mark.parametrize("links", [True, False])
def test_file_that_appears_during_the_block_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    final = tmp_path / "a.txt"

    def be_late() -> None:
        with atomic_path(final) as temporary:
            temporary.write_text("ours")
            final.write_text("theirs")

    with pytest.raises(OutputError, match="exists"):
        be_late()
    assert final.read_text() == "theirs"
    assert names(tmp_path) == ["a.txt"]


def test_file_systems_without_links_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    write_bytes(tmp_path / "a.bin", b"x")
    assert names(tmp_path) == ["a.bin"]


def test_missing_folder_is_made(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new" / "deep" / "a.bin", b"x")
    assert (tmp_path / "new" / "deep" / "a.bin").read_bytes() == b"x"


def test_folder_as_output_and_file_as_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder, not a file"):
        write_bytes(tmp_path, b"", overwrite=True)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"a\.bin cannot be written \(.*\): name another output folder"):
        write_bytes(tmp_path / "file" / "a.bin", b"")


def test_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", refusing(errno.EACCES))
    with pytest.raises(OutputError, match=r"a\.bin cannot be written \(permission denied\)"):
        write_bytes(tmp_path / "a.bin", b"x")


def test_full_disk_at_the_end_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refusing(errno.ENOSPC))
    with pytest.raises(OutputError, match="disk is full"):
        write_bytes(tmp_path / "a.bin", b"x")
    assert names(tmp_path) == []


def test_full_disk_in_the_block_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="disk is full"), atomic_path(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        (tmp_path / "input").read_bytes()
    assert names(tmp_path) == []


def test_symbolic_links_are_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_bytes(link, b"new", overwrite=True)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    write_bytes(tmp_path / "ours", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_names_of_255_bytes_work(tmp_path: Path) -> None:
    name = "a" * 251 + ".bin"
    write_bytes(tmp_path / name, b"x")
    assert names(tmp_path) == [name]


def test_paths_in_messages_are_one_printable_line() -> None:
    assert printable("Stück 1.wav") == "Stück 1.wav"
    assert printable("a\nb\x1b[31m.wav") == r"a\nb\x1b[31m.wav"
    assert printable(os.fsdecode(b"caf\xe9.wav")).encode() == rb"caf\udce9.wav"


def test_exclusive_lock_is_exclusive(tmp_path: Path) -> None:
    path = tmp_path / "ours.tonewood"
    with exclusive_lock(path):
        with pytest.raises(OutputError, match="is being written by another process: wait"):
            exclusive_lock(path).__enter__()
        with exclusive_lock(tmp_path / "other.tonewood"):
            remove_stale_temporaries([tmp_path])
        with pytest.raises(OutputError, match="another process"):
            exclusive_lock(path).__enter__()
        (lock_file,) = tmp_path.iterdir()
    assert names(tmp_path) == []
    lock_file.touch()  # as a killed process leaves it
    with exclusive_lock(path):
        pass
    assert names(tmp_path) == []
    lock_file.touch()
    remove_stale_temporaries([tmp_path])
    assert names(tmp_path) == []


def test_stale_temporaries_are_removed_and_locked_ones_kept(tmp_path: Path) -> None:
    left = tmp_path / ".tonewood-0123456789abcdef.wav"
    left.write_bytes(b"half")
    other = tmp_path / ".tonewood-0123456789abcdef0.wav"  # not a name of ours
    other.write_bytes(b"half")
    empty = tmp_path / ".tonewood-0123456789abcdee.wav"
    empty.touch()  # killed at once, under a clock that was set back since
    os.utime(empty, (2**33, 2**33))
    folder = tmp_path / ".tonewood-0123456789abcded"
    (folder / "stimuli").mkdir(parents=True)
    with files.atomic_path(tmp_path / "take.wav") as temporary:
        temporary.write_bytes(b"some of it")
        files.remove_stale_temporaries([tmp_path, tmp_path / "absent"])
        assert temporary.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "take.wav"]
    left.write_bytes(b"half")
    with left.open("wb") as held:
        held.write(b"half")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        files.remove_stale_temporaries([tmp_path])
        assert left.exists()
    files.remove_stale_temporaries([tmp_path])
    assert not left.exists()


def test_writer_whose_temporary_is_removed_before_its_lock_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = files.try_lock
    swept: list[int] = []

    def late(opened: int) -> bool | None:
        if not swept:
            swept.append(opened)
            files.remove_stale_temporaries([tmp_path])
            assert not list(tmp_path.glob(".tonewood-*"))
        return lock(opened)

    monkeypatch.setattr(files, "try_lock", late)
    files.write_bytes(tmp_path / "a.bin", b"all of it")
    assert (tmp_path / "a.bin").read_bytes() == b"all of it"
    swept.clear()
    with files.temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_write_removes_stale_temporaries_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / ".tonewood-0123456789abcdef.png").write_bytes(b"half")
    files.write_bytes(tmp_path / "a.bin", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
