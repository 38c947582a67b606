"""A test's folder appears whole or not at all, and answers are never replaced."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tonewood.errors import OutputError, shown
from tonewood.listening import answers
from tonewood.listening.design import ANSWERS, CHECKS, CONSENT, STIMULI, TEST


@contextmanager
def new_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a hidden folder that takes the name `out` when the block ends well."""
    check_new(out, overwrite)
    final = out.absolute()
    hidden = final.parent / f".tonewood-{secrets.token_hex(8)}"
    try:
        hidden.mkdir(parents=True)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise OutputError(f"{shown(out)} cannot be made ({why}): name another folder") from None
    try:
        yield hidden
        if final.exists():
            check_new(out, overwrite)
            _remove_test(final)
        hidden.rename(final)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def check_new(out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something; answers are never replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{shown(out)} is a file; a test needs a folder: name another")
    there = {path.name for path in out.iterdir()}
    if not there:
        return
    if not (out / TEST).exists():
        raise OutputError(f"{shown(out)} holds something else: name another folder")
    if not overwrite:
        raise OutputError(f"{shown(out)} exists: name another output or pass --overwrite")
    if (out / ANSWERS).exists() and answers.count(out / ANSWERS):
        raise OutputError(f"{shown(out)} holds answers, which are never replaced: name another")


def _remove_test(folder: Path) -> None:
    for name in (TEST, CONSENT, ANSWERS, f"{ANSWERS}-wal", f"{ANSWERS}-shm"):
        (folder / name).unlink(missing_ok=True)
    for name in (STIMULI, CHECKS):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.rmdir()
