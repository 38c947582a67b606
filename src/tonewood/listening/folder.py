"""A test's folder appears whole or not at all, and answers are never replaced."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tonewood.errors import OutputError, printable
from tonewood.files.output import temporary_folder
from tonewood.listening import answers
from tonewood.listening.design import ANSWERS_FILE, CHECKS_FOLDER, CONSENT_FILE, STIMULI_FOLDER, TEST_FILE


@contextmanager
def create_test_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a hidden folder that takes the name `out` when the block ends well."""
    check_test_folder(out, overwrite)
    final = out.absolute()
    with ExitStack() as stack:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            hidden = stack.enter_context(temporary_folder(final.parent))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise OutputError(f"{printable(out)} cannot be made ({why}): name another folder") from None
        yield hidden
        if final.exists():
            check_test_folder(out, overwrite)
            # Aside in one step: half a test under its name could be neither used nor replaced.
            old = stack.enter_context(temporary_folder(final.parent)) / "old"
            final.rename(old)
            try:
                hidden.rename(final)
            except OSError:
                old.rename(final)
                raise
        else:
            hidden.rename(final)


def check_test_folder(out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something but a test; answers are never replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{printable(out)} is a file; a test needs a folder: name another")
    there = {path.name for path in out.iterdir()}
    if not there:
        return
    if TEST_FILE not in there or there - _TEST_FOLDER_CONTENT:
        raise OutputError(f"{printable(out)} holds something else: name another folder")
    if not overwrite:
        raise OutputError(f"{printable(out)} exists: name another output or pass --overwrite")
    if ANSWERS_FILE in there and answers.count_answers(out / ANSWERS_FILE):
        raise OutputError(f"{printable(out)} holds answers, which are never replaced: name another")


_TEST_FOLDER_CONTENT = frozenset({TEST_FILE, CONSENT_FILE, ANSWERS_FILE, f"{ANSWERS_FILE}-wal", f"{ANSWERS_FILE}-shm", STIMULI_FOLDER, CHECKS_FOLDER})
