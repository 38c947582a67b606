"""Errors for users: all derive from :class:`TonewoodError`.

A message is one line: what is wrong with which value, the limit, and what to do, as in
``take.wav lasts 0.04 s; a score needs 0.25 s: give a longer recording``.
"""

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Self


class TonewoodError(Exception):
    """Base class of all errors for users; the text is written for them.

    Attributes
    ----------
    is_temporary : bool
        The same call may succeed later: a full disk, a lost worker, a network that does not answer.
    """

    is_temporary = False

    def as_temporary(self) -> Self:
        """Return this error, marked as temporary."""
        self.is_temporary = True
        return self


class CallError(TonewoodError):
    """The call is wrong (exit code 2)."""


class AudioError(TonewoodError):
    """A recording cannot be used."""


class FolderError(TonewoodError):
    """A folder of recordings cannot be used."""


class ModelError(TonewoodError):
    """A model file is missing, damaged or of another kind."""


class RecipeError(TonewoodError):
    """A recipe cannot be read, or does not fit the recording or model."""


class OutputError(TonewoodError):
    """An output cannot be written, exists already, or would replace its input."""


class DeviceError(TonewoodError):
    """A GPU or sound device does not exist, fails, or ran out of memory."""


class ClusterError(TonewoodError):
    """Workers cannot be started or were lost."""

    is_temporary = True


class MissingExtraError(TonewoodError):
    """An optional dependency is not installed."""


def printable(path: str | PathLike[str]) -> str:
    """Return a path with unprintable characters escaped, so that it fits one line of any terminal.

    File names may contain line breaks, escape sequences, and bytes that are not UTF-8.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in fspath(path))


# What a later call meets again, unless somebody changes something.
_LASTING_ERRNOS = frozenset({
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EROFS,
    errno.ELOOP, errno.EINVAL, errno.EEXIST,
})  # fmt: skip


def may_pass(error: BaseException) -> bool:
    """Return True if an exception of the system or of Python may not occur again."""
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in _LASTING_ERRNOS
    return isinstance(error, MemoryError)


def failure_reason(error: Exception) -> str:
    """Return what the system says of a failure, in lower case, for the middle of a message."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    # An OSError with only a text has no `strerror`; errors of other classes have no such attribute.
    return (getattr(error, "strerror", None) or str(error)).lower()


@contextmanager
def settings_named_as(names: Mapping[str, str]) -> Iterator[None]:
    """Name what the caller wrote, an option or a parameter, instead of the setting in errors of settings."""
    try:
        yield
    except CallError as error:
        setting, space, reason = str(error).partition(" ")
        # An item of a list has its number: training.fix.0 is an item of training.fix.
        name = names.get(re.sub(r"\.\d+$", "", setting), setting)
        raise CallError(f"{name}{space}{reason}") from None
