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


class InputFileError(TonewoodError):
    """A table, a curve or a text that was named cannot be read."""


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


# --- PyTorch, which is not part of the base installation


@contextmanager
def explain_missing_torch(feature: str, extra: str = "train") -> Iterator[None]:
    """Raise MissingExtraError instead of a failed import of torch; works as a decorator too.

    Parameters
    ----------
    feature : str
        First word of the message, as in ``train``.
    extra : str
        Extra that brings torch and everything else that the feature needs.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not is_missing_torch(error):
            raise
        raise _missing_torch_error(feature, extra) from None


def is_missing_torch(error: ModuleNotFoundError) -> bool:
    """Return True if the module that was not found is torch, or a part of it."""
    return (error.name or "").partition(".")[0] == "torch"


def class_without_torch(name: str) -> type:
    """Return a class that stands for one that needs torch: calling it raises MissingExtraError.

    With it, `from tonewood import *` and `help(tonewood)` work without torch.
    """

    def __init__(self: object, *_: object, **__: object) -> None:  # noqa: N807 - a method of the class
        raise _missing_torch_error(name)

    short_name = name.rpartition(".")[2]
    return type(short_name, (), {"__doc__": str(_missing_torch_error(name)), "__init__": __init__})


def _missing_torch_error(feature: str, extra: str = "train") -> MissingExtraError:
    return MissingExtraError(f"{feature} needs PyTorch: pip install '.[{extra}]'")
